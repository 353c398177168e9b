// The dataflow as a picture: drawn anew when its structure changes; otherwise only what has changed is set.

import { Dataflow, SIZE, fingerprint, within } from "./dataflow.js";
import { attr, byId, put, svg } from "./dom.js";
import { count, duration, rate, share, short } from "./format.js";

const STEP = 1.25;
const PAN = 60;
const SCALE = [0.04, 2.5];
/** Below this scale only names and colours are drawn, larger. */
const FAR = 0.55;
/** At first nothing is drawn smaller. */
const LEGIBLE = 0.42;
/** An operator whose busiest worker is busy with it for so much of the time bounds the rate of the job, or soon will. */
const BOTTLENECK = 0.5;
const SEVERE = 0.8;
const HEIGHTS = [240, 760];
const DRAG = 4;

/** From afar: the size of names, as the style sheet has it, and their room in a box. */
const FAR_SIZE = 22;
const FAR_ROOM = SIZE.w - 18;

const paint = document.createElement("canvas").getContext("2d");

/** A text as much of which as has room. */
function fitted(text, size, room) {
  paint.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
  const long = (one) => paint.measureText(one).width > room;
  if (!long(text)) return text;
  let kept = text.slice(0, 40);
  while (kept.length > 1 && long(`${kept}…`)) kept = kept.slice(0, -1);
  return `${kept.trimEnd()}…`;
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
/** Its shape says that it is a source or a sink. */
const brief = ({ name, op }) => (name.startsWith("Source: ") ? op?.source : op?.sink) ?? name;
const level = (busy) => [0.05, 0.2, 0.5, 0.8].filter((least) => busy >= least).length;
const clamp = (value, [least, most]) => Math.min(most, Math.max(least, value));

export class Graph {
  constructor(details) {
    this.details = details;
    this.details.go = (key) => this.choose(key, true);
    this.host = byId("graph");
    this.content = svg("g");
    this.canvas = svg("svg", { "aria-hidden": "true", width: "100%", height: "100%" }, this.content);
    this.host.append(this.canvas);
    this.view = { x: 0, y: 0, k: 1 };
    this.chosen = null;
    this.lagging_ms = 2000;
    /** Whether someone has moved it: then it stays where it is. */
    this.moved = false;
    this.listen();
    this.watch();
  }

  /** Shows a report. Returns the model. */
  update(report) {
    const { graph } = report;
    this.lagging_ms = Math.max(2000, 3 * (report.epochs.latency_p99_ms ?? 0));
    const print = fingerprint(graph);
    if (print !== this.print) {
      const opened = this.flow?.opened;
      this.print = print;
      this.flow = new Dataflow(graph);
      if (opened) this.flow.opened = opened;
      this.flow.measure(graph);
      this.draw();
      this.fit(true);
      this.moved = false;
    }
    this.flow.measure(graph);
    this.holding = report.holds.culprit?.name ?? null;
    this.refresh();
    return this.flow;
  }

  /** What is seen of the operators that hold the job, by the name of the culprit. */
  holders() {
    const named = ({ op }) => [op.name, op.source, op.sink].includes(this.holding);
    const found = this.holding === null ? [] : this.flow.leaves.filter(named);
    // Of the operators of a source it is the one that reads.
    const reads = found.filter((node) => node.name.startsWith("Source: "));
    return new Set((reads.length > 0 ? reads : found).map((node) => this.flow.seen(node)));
  }

  /** Fits it anew into another width, unless someone has moved it. */
  watch() {
    let width = this.host.clientWidth;
    const look = () => {
      if (this.host.clientWidth === width) return;
      width = this.host.clientWidth;
      if (this.flow && !this.moved) this.fit(true);
    };
    new ResizeObserver(() => requestAnimationFrame(look)).observe(this.host);
  }

  draw() {
    const { boxes, lines, width, height } = this.flow.place();
    this.size = { width, height };
    this.boxes = boxes.map((box) => this.box(box));
    this.lines = lines.map((line) => this.line(line));
    this.shapes = new Map(this.boxes.map((shape) => [shape.box.node.key, shape]));
    const [open, shut] = [this.boxes.filter((one) => one.box.open), this.boxes.filter((one) => !one.box.open)];
    const depth = ({ box: { node } }) =>
      node.parent && !node.parent.root ? 1 + depth({ box: { node: node.parent } }) : 0;
    open.sort((a, b) => depth(a) - depth(b));
    this.content.replaceChildren(...[open, this.lines, shut].flat().map((one) => one.g));
    this.rename();
    put(byId("graph-empty"), this.boxes.length === 0 ? "No operators are known yet." : "");
  }

  box(box) {
    const { node, open, w, h } = box;
    const kind = node.op?.source
      ? "source"
      : node.op?.sink
        ? "sink"
        : node.isChain
          ? "chain"
          : node.isScope
            ? "scope"
            : "operator";
    const g = svg("g", {
      class: `node ${kind}${open ? " open" : ""}`,
      transform: `translate(${box.x} ${box.y})`,
      "data-key": node.key,
    });
    const shape = { g, box, kind };
    g.append(svg("title", {}, node.name));
    if (!open && node.isScope) g.append(svg("rect", { class: "behind", x: 4, y: 4, width: w, height: h, rx: 5 }));
    shape.names = open
      ? [clipped(node.name, Math.floor((w - 40) / 7))]
      : [clipped(node.name, node.isScope ? 19 : 23), fitted(brief(node), FAR_SIZE, FAR_ROOM)];
    shape.rect = svg("rect", {
      class: "shape",
      width: w,
      height: h,
      rx: kind === "source" || kind === "sink" ? 16 : 5,
    });
    const left = node.isScope ? 30 : 9;
    shape.name = svg("text", { class: "name", x: node.isScope ? left : 9, y: open ? 20 : 18 });
    g.append(shape.rect, shape.name);
    if (node.isScope) {
      const sign = svg("path", { class: "sign", d: open ? "M12 15h10" : "M11 14h10M16 9v10" });
      g.append(
        svg("rect", { class: "turn", x: 7, y: open ? 6 : 5, width: 18, height: 18, rx: 4, "data-turn": "" }),
        sign,
      );
    }
    if (!open) this.inner(shape, left, box);
    return shape;
  }

  inner(shape, left, { w, h }) {
    shape.sub = svg("text", { class: "sub", x: left, y: 33 });
    shape.trouble = svg("text", { class: "trouble", x: left, y: 47 });
    shape.bar = svg("rect", { class: "busy", x: 6, y: h - 5, height: 3, rx: 1.5, width: 0 });
    shape.mark = svg("text", { class: "mark", x: w / 2, y: -5, "text-anchor": "middle" });
    shape.g.append(
      shape.sub,
      shape.trouble,
      svg("rect", { class: "groove", x: 6, y: h - 5, height: 3, rx: 1.5, width: w - 12 }),
      shape.bar,
      shape.mark,
    );
  }

  line({ piece, points, back, below }) {
    const path = svg("path", { class: back ? "edge back" : "edge", d: back ? loop(points, below) : curve(points) });
    const title = svg("title");
    path.append(title);
    return { g: path, piece, title, name: `${piece.a.name} → ${piece.b.name}` };
  }

  /** Sets what has changed. */
  refresh() {
    const { flow } = this;
    const { busiest } = flow;
    const marked = busiest && busiest.op.busiest_share > 0 ? flow.seen(busiest) : null;
    const holders = this.holders();
    for (const shape of this.boxes) this.refreshBox(shape, shape.box.node === marked, holders.has(shape.box.node));
    for (const line of this.lines) this.refreshLine(line);
    put(byId("bottleneck"), this.sentence(busiest));
    attr(byId("bottleneck"), "data-level", busiest?.op.busiest_share >= SEVERE ? "warn" : null);
    this.details.update(flow, this.chosen && flow.byId.get(this.chosen), this.lagging_ms);
  }

  sentence(busiest) {
    if (!busiest) return "";
    const most = busiest.op.busiest_share;
    const where = within(busiest);
    const name = `“${busiest.name}”${where ? ` (in ${where})` : ""}`;
    if (most >= BOTTLENECK) return `The bottleneck is ${name}: it takes ${share(most)} of its busiest worker's time.`;
    if (most > 0)
      return `No operator is a bottleneck; the busiest is ${name}, with ${share(most)} of its busiest worker's time.`;
    return "No operator is busy.";
  }

  refreshBox(shape, marked, holds) {
    const { node, open } = shape.box;
    const { now } = node;
    const lagging = now.lag !== null && now.lag > this.lagging_ms;
    const mark = marked ? (this.flow.busiest.op.busiest_share >= BOTTLENECK ? "bottleneck" : "busiest") : "";
    const inside = mark && node !== this.flow.busiest ? " inside" : "";
    const marks = [holds && "holds the job", mark && mark + inside].filter(Boolean).join(", ");
    attr(shape.g, "data-trouble", lagging ? "bad" : now.queued > 0 ? "warn" : null);
    attr(shape.g, "data-mark", mark || null);
    attr(shape.g, "data-holds", holds ? "" : null);
    attr(shape.g, "data-chosen", node.key === this.chosen ? "" : null);
    if (open) return;
    attr(shape.g, "data-heat", String(level(now.busiest ?? 0)));
    put(shape.mark, marks && `▼ ${marks}`);
    if (this.far) return;
    const kind =
      shape.kind === "scope" || shape.kind === "chain"
        ? `${count(now.operators)} op. · `
        : shape.kind === "operator"
          ? ""
          : `${shape.kind} · `;
    put(shape.sub, `${kind}${share(now.busy)} · ${rate(now.rate)}`);
    put(
      shape.trouble,
      [now.queued > 0 && `▲ ${short(now.queued)} queued`, lagging && `◷ ${duration(now.lag)} lag`]
        .filter(Boolean)
        .join(" "),
    );
    attr(shape.bar, "width", String(Math.round(clamp(now.busiest ?? 0, [0, 1]) * (shape.box.w - 12))));
  }

  refreshLine(line) {
    let flowing = 0;
    let exchanged = false;
    for (const at of line.piece.channels) {
      flowing += this.flow.channels[at].records_per_s;
      exchanged ||= this.flow.channels[at].exchanged;
    }
    attr(line.g, "stroke-width", (1 + Math.log10(1 + flowing) * 0.8).toFixed(1));
    attr(line.g, "data-flowing", flowing > 0 ? "" : null);
    attr(line.g, "data-exchanged", exchanged ? "" : null);
    if (!this.far) put(line.title, `${line.name}: ${short(flowing)} records/s${exchanged ? ", between workers" : ""}`);
  }

  /** Opens or closes a scope, which stays where it is on the screen. */
  turn(key) {
    const node = this.flow.byId.get(key);
    if (!node?.isScope) return;
    const before = this.shapes.get(key)?.box;
    this.flow.opened.set(key, !this.flow.isOpen(node));
    this.draw();
    const after = this.shapes.get(key)?.box;
    if (before && after) this.pan((before.x - after.x) * this.view.k, (before.y - after.y) * this.view.k);
    this.refresh();
  }

  turnAll(open) {
    for (const node of this.flow.nodes) if (node.isScope && !node.root) this.flow.opened.set(node.key, open);
    this.draw();
    this.fit(true);
    this.refresh();
  }

  /** Chooses an operator; `show` opens what it is in and brings it to the middle. */
  choose(key, reveal = false) {
    const node = key && this.flow.byId.get(key);
    this.chosen = node ? key : null;
    if (node && reveal) {
      let closed = false;
      for (let one = node.parent; one && !one.root; one = one.parent) {
        closed ||= !this.flow.isOpen(one);
        this.flow.opened.set(one.key, true);
      }
      if (closed) this.draw();
    }
    // The details open beside the graph and change its width.
    this.refresh();
    if (node && reveal) this.centre(this.shapes.get(key).box);
    put(byId("graph-said"), node ? `${node.name} is chosen.` : "");
  }

  /** The next or the previous of what is seen. */
  step(by) {
    const keys = this.boxes
      .map((shape) => shape.box)
      .sort((a, b) => a.x - b.x || a.y - b.y)
      .map((box) => box.node.key);
    const at = keys.indexOf(this.chosen);
    this.choose(keys[(at < 0 && by < 0 ? keys.length - 1 : at + by + keys.length) % keys.length]);
    if (this.chosen) this.centre(this.shapes.get(this.chosen).box);
  }

  find(text, by) {
    const wanted = text.trim().toLowerCase();
    const found =
      wanted === ""
        ? []
        : this.flow.nodes.filter((node) => !node.root && !node.isChain && node.name.toLowerCase().includes(wanted));
    if (found.length === 0) return { at: 0, of: 0 };
    const keys = found.map((node) => node.key);
    const next = keys.indexOf(this.chosen) < 0 ? 0 : (keys.indexOf(this.chosen) + by + keys.length) % keys.length;
    this.choose(keys[next], true);
    return { at: next + 1, of: keys.length };
  }

  centre(box) {
    const { width, height } = this.host.getBoundingClientRect();
    const k = Math.max(this.view.k, 0.7);
    this.moved = true;
    this.view = {
      k,
      x: width / 2 - (box.x + Math.min(box.w, width / k) / 2) * k,
      y: height / 2 - (box.y + Math.min(box.h, height / k) / 2) * k,
    };
    this.move(0, 0);
  }

  pan(x, y) {
    this.moved = true;
    this.move(x, y);
  }

  move(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.content.setAttribute("transform", `translate(${this.view.x} ${this.view.y}) scale(${this.view.k})`);
    const more = this.view.x + this.size.width * this.view.k > this.host.clientWidth;
    attr(this.host, "data-more", more ? "" : null);
    this.rename();
  }

  /** Names are shorter from afar, and larger. */
  rename() {
    const far = this.view.k < FAR;
    if (this.named === this.boxes && this.far === far) return;
    this.named = this.boxes;
    this.far = far;
    attr(this.canvas, "class", far ? "far" : null);
    for (const { name, names, box } of this.boxes) {
      put(name, names.at(far ? -1 : 0));
      attr(name, "x", far && !box.open ? "9" : box.node.isScope ? "30" : "9");
    }
    // What cannot be seen from afar was not kept up to date.
    if (!far && this.flow.channels) this.refresh();
  }

  zoom(by, at) {
    const { width, height } = this.host.getBoundingClientRect();
    const [x, y] = at ?? [width / 2, height / 2];
    this.moved = true;
    const k = clamp(this.view.k * by, SCALE);
    const grown = k / this.view.k;
    this.view = { k, x: x - (x - this.view.x) * grown, y: y - (y - this.view.y) * grown };
    this.move(0, 0);
  }

  /** Shows everything; at first only as much as can be read. */
  fit(legible = false) {
    const width = this.host.clientWidth;
    const across = Math.min((width - 24) / this.size.width, 1.1);
    if (legible) {
      const needed = this.size.height * Math.max(across, LEGIBLE) + 40;
      this.host.style.setProperty(
        "height",
        `${Math.round(clamp(needed, [HEIGHTS[0], Math.min(HEIGHTS[1], innerHeight * 0.6)]))}px`,
      );
    }
    const height = this.host.clientHeight;
    const whole = Math.min(across, (height - 24) / this.size.height);
    const k = clamp(legible ? Math.max(whole, LEGIBLE) : whole, SCALE);
    const middle = (room, size) => (room - size * k) / 2;
    const cut = k > whole;
    this.view = {
      k,
      x: cut ? Math.max(12, middle(width, this.size.width)) : middle(width, this.size.width),
      y: middle(height, this.size.height),
    };
    this.move(0, 0);
  }

  listen() {
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.host.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        const { left, top } = this.host.getBoundingClientRect();
        this.zoom(Math.exp(-event.deltaY / 300), [event.clientX - left, event.clientY - top]);
      },
      { passive: false },
    );
    this.host.addEventListener("pointerdown", (event) => this.grab(event));
    byId("zoom-in").addEventListener("click", () => this.zoom(STEP));
    byId("zoom-out").addEventListener("click", () => this.zoom(1 / STEP));
    byId("zoom-fit").addEventListener("click", () => this.fit());
    byId("open-all").addEventListener("click", () => this.turnAll(true));
    byId("close-all").addEventListener("click", () => this.turnAll(false));
    const search = byId("search");
    const look = (by) => {
      const { at, of } = this.find(search.value, by);
      put(byId("search-found"), search.value.trim() === "" ? "" : of === 0 ? "none" : `${at} of ${of}`);
    };
    search.addEventListener("input", () => look(0));
    search.addEventListener("keydown", (event) => event.key === "Enter" && look(event.shiftKey ? -1 : 1));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => this.pan(PAN, 0),
      ArrowRight: () => this.pan(-PAN, 0),
      ArrowUp: () => this.pan(0, PAN),
      ArrowDown: () => this.pan(0, -PAN),
      "+": () => this.zoom(STEP),
      "=": () => this.zoom(STEP),
      "-": () => this.zoom(1 / STEP),
      0: () => this.fit(),
      n: () => this.step(1),
      p: () => this.step(-1),
      Enter: () => this.turn(this.chosen),
      " ": () => this.turn(this.chosen),
      "/": () => byId("search").focus(),
      Escape: () => this.choose(null),
    };
    if (!this.flow || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  /** A press that moves pans; one that does not chooses. */
  grab(event) {
    if (event.button !== 0 || !this.flow) return;
    const begun = [event.clientX, event.clientY];
    let last = begun;
    let moved = false;
    const target = event.target;
    const move = (next) => {
      moved ||= Math.hypot(next.clientX - begun[0], next.clientY - begun[1]) > DRAG;
      if (moved) {
        this.host.setPointerCapture(event.pointerId);
        this.pan(next.clientX - last[0], next.clientY - last[1]);
      }
      last = [next.clientX, next.clientY];
    };
    const end = (last) => {
      for (const [name, listener] of listeners) this.host.removeEventListener(name, listener);
      if (!moved && last.type === "pointerup") this.press(target);
    };
    const listeners = [
      ["pointermove", move],
      ["pointerup", end],
      ["pointercancel", end],
    ];
    for (const [name, listener] of listeners) this.host.addEventListener(name, listener);
  }

  press(target) {
    const key = target.closest?.("[data-key]")?.dataset.key ?? null;
    if (key && "turn" in target.dataset) this.turn(key);
    else this.choose(key);
  }
}

function curve(points) {
  const [[x, y], ...rest] = points;
  let path = `M${x} ${y}`;
  let [px, py] = [x, y];
  for (const [nx, ny] of rest) {
    const middle = (px + nx) / 2;
    path += py === ny ? `H${nx}` : `C${middle} ${py} ${middle} ${ny} ${nx} ${ny}`;
    [px, py] = [nx, ny];
  }
  return path;
}

/** From the end of one round below to the beginning of the other. */
function loop(points, below) {
  const [[x, y], [u, v]] = [points[0], points.at(-1)];
  return `M${x} ${y}C${x + 30} ${y} ${x + 30} ${below} ${x} ${below}H${u}C${u - 30} ${below} ${u - 30} ${v} ${u} ${v}`;
}
