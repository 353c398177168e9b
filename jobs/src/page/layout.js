// Where the operators of one scope are drawn: layers from left to right. Pure; it knows nothing of drawing.
//
// 1. Channels that go back, as of loops, are left out of the ranks.
// 2. An operator's rank is the longest way to it. A long channel gets a bend in every layer that it passes.
// 3. Layers are ordered by the mean place of their neighbours, some times over.
// 4. Within a layer each is as near to its neighbours as the order allows: a regression that keeps the order.

const SWEEPS = 8;
const MAX_BENDS = 6000;
const BEND = 8;

/** Marks the edges that close a loop, depth first in the order given. */
function backEdges(nodes, edges) {
  const out = nodes.map(() => []);
  edges.forEach((edge) => out[edge.a].push(edge));
  const state = new Uint8Array(nodes.length);
  for (let root = 0; root < nodes.length; root += 1) {
    if (state[root]) continue;
    const stack = [[root, 0]];
    state[root] = 1;
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      const edge = out[top[0]][top[1]++];
      if (!edge) {
        state[top[0]] = 2;
        stack.pop();
      } else if (state[edge.b] === 1) edge.back = true;
      else if (state[edge.b] === 0) {
        state[edge.b] = 1;
        stack.push([edge.b, 0]);
      }
    }
  }
}

function ranks(nodes, edges) {
  const forward = edges.filter((edge) => !edge.back);
  const out = nodes.map(() => []);
  const open = new Int32Array(nodes.length);
  for (const edge of forward) {
    out[edge.a].push(edge.b);
    open[edge.b] += 1;
  }
  const rank = new Int32Array(nodes.length);
  const order = [];
  nodes.forEach((_, at) => open[at] === 0 && order.push(at));
  for (let next = 0; next < order.length; next += 1) {
    for (const to of out[order[next]]) {
      rank[to] = Math.max(rank[to], rank[order[next]] + 1);
      if (--open[to] === 0) order.push(to);
    }
  }
  // What nothing leads to stands right before what it leads to.
  const led = new Set(forward.map((edge) => edge.b));
  nodes.forEach((node, at) => {
    if (!led.has(at) && out[at].length > 0 && node.side !== "in")
      rank[at] = Math.min(...out[at].map((to) => rank[to])) - 1;
  });
  const last = rank.reduce((a, b) => Math.max(a, b), 0);
  nodes.forEach((node, at) => {
    if (node.side === "out") rank[at] = last;
  });
  return rank;
}

/** The layers, with bends, and the neighbours of each of their places on either side. */
function layers(nodes, edges, rank) {
  const places = nodes.map((node, at) => ({ h: node.h, w: node.w, rank: rank[at], before: [], after: [] }));
  const join = (a, b) => {
    places[a].after.push(b);
    places[b].before.push(a);
  };
  for (const edge of edges) {
    edge.bends = [];
    if (edge.back || rank[edge.b] <= rank[edge.a]) continue;
    let from = edge.a;
    for (let at = rank[edge.a] + 1; at < rank[edge.b] && places.length < MAX_BENDS; at += 1) {
      places.push({ h: BEND, w: 0, rank: at, before: [], after: [] });
      edge.bends.push(places.length - 1);
      join(from, places.length - 1);
      from = places.length - 1;
    }
    join(from, edge.b);
  }
  const lists = [];
  places.forEach((place, at) => (lists[place.rank] ??= []).push(at));
  return { places, lists: Array.from(lists, (list) => list ?? []) };
}

const mean = (list, of) => list.reduce((total, at) => total + of(at), 0) / list.length;

function order({ places, lists }) {
  const number = (list) => list.forEach((at, index) => (places[at].index = index));
  lists.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const list of down ? lists : [...lists].reverse()) {
      for (const at of list) {
        const near = down ? places[at].before : places[at].after;
        places[at].wish = near.length > 0 ? mean(near, (other) => places[other].index) : places[at].index;
      }
      list.sort((a, b) => places[a].wish - places[b].wish || places[a].index - places[b].index);
      number(list);
    }
  }
}

/** The places nearest to the wishes at which nothing overlaps: pools of neighbours share their mean. */
function settle(list, places, gap) {
  const pools = [];
  let offset = 0;
  const offsets = list.map((at, index) => {
    if (index > 0) offset += (places[list[index - 1]].h + places[at].h) / 2 + gap;
    return offset;
  });
  list.forEach((at, index) => {
    let pool = { total: places[at].wish - offsets[index], size: 1 };
    while (pools.length > 0 && pools.at(-1).total / pools.at(-1).size >= pool.total / pool.size) {
      const last = pools.pop();
      pool = { total: last.total + pool.total, size: last.size + pool.size };
    }
    pools.push(pool);
  });
  let index = 0;
  for (const pool of pools) {
    for (let n = 0; n < pool.size; n += 1, index += 1) places[list[index]].y = pool.total / pool.size + offsets[index];
  }
}

function heights({ places, lists }, gap) {
  for (const list of lists) {
    list.forEach((at) => (places[at].wish = 0));
    settle(list, places, gap);
  }
  for (let sweep = 0; sweep < SWEEPS + 1; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const list of down ? lists : [...lists].reverse()) {
      for (const at of list) {
        const near = down ? places[at].before : places[at].after;
        places[at].wish = near.length > 0 ? mean(near, (other) => places[other].y) : places[at].y;
      }
      settle(list, places, gap);
    }
  }
}

/**
 * Places `nodes` (`{ w, h, side }`; `side` is `in` or `out` for the scope's own ends), which get their middle `x`, `y`. `edges`
 * (`{ a, b }`, indexes) get `points` from node to node, and `back` if they close a loop. Returns the size.
 */
export function layered(nodes, edges, { gapX, gapY }) {
  if (nodes.length === 0) return { width: 0, height: 0 };
  backEdges(nodes, edges);
  const found = layers(nodes, edges, ranks(nodes, edges));
  order(found);
  heights(found, gapY);
  const { places, lists } = found;
  const top = places.reduce((least, place) => Math.min(least, place.y - place.h / 2), Infinity);
  const bottom = places.reduce((most, place) => Math.max(most, place.y + place.h / 2), -Infinity);
  let x = 0;
  for (const list of lists) {
    const width = list.reduce((most, at) => Math.max(most, places[at].w), 0);
    for (const at of list) places[at].x = x + width / 2;
    for (const at of list) places[at].layer = [x, x + width];
    x += width + gapX;
  }
  nodes.forEach((node, at) => Object.assign(node, { x: places[at].x, y: places[at].y - top }));
  for (const edge of edges) {
    edge.points = edge.bends.flatMap((at) => places[at].layer.map((side) => [side, places[at].y - top]));
  }
  return { width: x - gapX, height: bottom - top };
}
