"""What is asked of the page in its own language; each is an expression."""

LEAST_CONTRAST = 4.5

#: Every text that is seen whose contrast with what is behind it is too small.
CONTRAST = """(() => {
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const shape = one.classList.contains('node') && !one.classList.contains('open') && one.querySelector('.shape');
      if (shape) return rgba(getComputedStyle(shape).fill);
      const found = rgba(getComputedStyle(one).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const box = node.getBoundingClientRect();
    if (!texts.currentNode.data.trim() || box.width < 2 || node.closest('title, .unseen, caption, .mark, [hidden]') || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgba(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (ratio < LEAST) poor.push(`${texts.currentNode.data.trim().slice(0, 30)} (${node.className.baseVal ?? node.className}): ${ratio.toFixed(2)}`);
  }
  return { seen, poor: [...new Set(poor)] };
})()""".replace("LEAST", str(LEAST_CONTRAST))

#: What no text or title may say.
NONSENSE = """(() => {
  const bad = /NaN|undefined|Infinity|\\[object|\\bnull\\b/;
  const found = [];
  for (const node of document.body.querySelectorAll('*')) {
    const own = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data);
    for (const name of ['title', 'aria-label', 'aria-valuetext', 'd', 'width', 'height', 'y', 'transform', 'points']) own.push(node.getAttribute(name) ?? '');
    found.push(...own.filter((text) => bad.test(text)));
  }
  return found;
})()"""


#: Dataflows by chance, and what is wrong with how they are placed: boxes that overlap or leave their scope, lines that miss their boxes.
PLACED = """(async () => {
  const { Dataflow } = await import('./dataflow.js');
  const wrong = [];
  let state = 1;
  const chance = (n) => (state = (state * 48271) % 2147483647) % n;
  for (let round = 0; round < 60; round += 1) {
    const size = 2 + chance(round % 4 === 0 ? 200 : 30);
    const operators = [];
    for (let id = 0; id < size; id += 1) {
      const scopes = operators.filter((one) => one.is_scope);
      const scope = id === 0 ? null : scopes[chance(scopes.length)].id;
      operators.push({ id, name: `o${id}`, scope, is_scope: id === 0 || chance(6) === 0, busy_share: 0, busiest_share: 0, queued: 0 });
    }
    // Also loops, doubles, operators that feed themselves, ends in other scopes, and ends that nobody knows.
    const channels = Array.from({ length: chance(size * 2) }, () => ({ from: chance(size + 1), to: chance(size + 1), records_per_s: 1 }));
    const flow = new Dataflow({ operators, channels });
    flow.measure({ operators, channels });
    for (const node of flow.nodes) if (node.isScope && !node.root && chance(2)) flow.opened.set(node.key, chance(2) === 0);
    const { boxes, lines, width, height } = flow.place();
    const seen = new Map(boxes.map((box) => [box.node, box]));
    const holds = (a, b) => a.x <= b.x && a.y <= b.y && a.x + a.w >= b.x + b.w - 0.01 && a.y + a.h >= b.y + b.h - 0.01;
    for (const box of boxes) {
      const around = seen.get(box.node.parent) ?? { x: 0, y: 0, w: width, h: height };
      if (!holds(around, box)) wrong.push(`${round}: ${box.node.name} leaves its scope`);
      if (flow.seen(box.node) !== box.node) wrong.push(`${round}: ${box.node.name} is drawn, and in a closed scope`);
      for (const other of boxes) {
        const apart = other.x >= box.x + box.w || box.x >= other.x + other.w || other.y >= box.y + box.h - 0.01 || box.y >= other.y + other.h - 0.01;
        if (other !== box && other.node.parent === box.node.parent && !apart) wrong.push(`${round}: ${box.node.name} overlaps ${other.node.name}`);
      }
    }
    const drawn = (at, end, node) => lines.some(({ piece }) => piece.channels.includes(at) && piece[end] === flow.seen(node));
    channels.forEach(({ from, to }, at) => {
      const [a, b] = [from, to].map((id) => flow.byId.get(String(id)));
      if (a && b && !a.root && !b.root && flow.seen(a) !== flow.seen(b) && !(drawn(at, 'a', a) && drawn(at, 'b', b))) wrong.push(`${round}: ${from} to ${to} is not drawn`);
    });
    for (const { piece, points } of lines) {
      const ends = [[piece.a, points[0], piece.a !== piece.scope], [piece.b, points.at(-1), piece.b === piece.scope]];
      for (const [node, [x, y], right] of ends) {
        const box = seen.get(node);
        const at = box && (right ? box.x + box.w : box.x);
        if (!box || Math.abs(x - at) > 0.01 || y < box.y || y > box.y + box.h) wrong.push(`${round}: a line misses ${node.name}`);
      }
      if (points.flat().some((value) => !Number.isFinite(value))) wrong.push(`${round}: a line leads nowhere`);
    }
  }
  return wrong.slice(0, 10);
})()"""
