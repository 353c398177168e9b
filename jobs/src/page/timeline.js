// The last epochs, a bar for each: how long it took to each stage.

import { attr, byId, el, keyed, put, svg } from "./dom.js";
import { count, duration, moment } from "./format.js";
import { Table } from "./table.js";

/** What an epoch waits for, in order, and when it has it. */
const STAGES = [
  ["sealed", "minted to sealed", "sealed_ms"],
  ["frontier", "to the frontier", "frontier_ms"],
  ["written", "to written", "written_ms"],
  ["committed", "to committed", "committed_ms"],
];
const MOST = 120;
const HEIGHT = 168;
const [LEFT, TOP, BOTTOM] = [58, 14, 20];
/** What is so much longer than nine of ten is cut off. */
const CUT = 3;

/** The segments of an epoch: its stages, the one that it is in last. */
export function segments(epoch, now_ms) {
  const found = [];
  let from = 0;
  for (const [stage, , field] of STAGES) {
    const to = epoch[field] ?? null;
    if (to === null) {
      const age = Math.max(from, now_ms - epoch.minted_at_ms);
      return [...found, { stage, from, to: age, open: true }];
    }
    found.push({ stage, from, to: Math.max(from, to), open: false });
    from = Math.max(from, to);
  }
  return found;
}

/** A round number that is no less. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Timeline {
  constructor() {
    this.host = byId("timeline");
    this.axis = svg("g", { class: "axis" });
    this.bars = svg("g");
    this.canvas = svg(
      "svg",
      { width: "100%", height: HEIGHT, role: "img", "aria-label": "Epochs by stage; the table below says the same" },
      this.axis,
      this.bars,
    );
    this.host.append(this.legend(), this.canvas, this.alternative());
    this.width = this.host.clientWidth;
    new ResizeObserver(([found]) => (this.width = found.contentRect.width)).observe(this.host);
  }

  legend() {
    const items = STAGES.map(([stage, name]) => el("li", {}, el("span", { class: `swatch ${stage}` }), name));
    return el("ul", { class: "legend" }, ...items, el("li", {}, el("span", { class: "swatch open" }), "in flight"));
  }

  alternative() {
    const at = (name, field) => ({
      name,
      value: (row) => row[field] ?? null,
      text: (row) => duration(row[field]),
      unknown: "it has not come to this stage",
    });
    const columns = [
      {
        name: "Epoch",
        value: (row) => row.epoch,
        text: (row) => count(row.epoch),
        title: (row) => moment(row.minted_at_ms),
      },
      at("Sealed after", "sealed_ms"),
      at("Frontier after", "frontier_ms"),
      at("Written after", "written_ms"),
      at("Committed after", "committed_ms"),
    ];
    this.table = new Table({
      caption: "The last epochs",
      columns,
      sort: { at: 0, down: true },
      key: (row) => row.epoch,
      limit: 20,
    });
    this.disclosure = el("details", {}, el("summary", {}, "As a table"), this.table.node);
    this.disclosure.addEventListener("toggle", () => this.epochs && this.table.update(this.epochs));
    return this.disclosure;
  }

  update({ epochs, at_ms }) {
    const list = (this.epochs = epochs.recent.slice(-MOST));
    const cut = list.map((epoch) => ({ epoch, parts: segments(epoch, at_ms) }));
    const ends = cut.map(({ parts }) => parts.at(-1).to).sort((a, b) => a - b);
    const usual = ends[Math.floor(ends.length * 0.9)] ?? 0;
    const most = round(Math.max(1, Math.min(ends.at(-1) ?? 0, CUT * usual || 1)));
    const width = this.width || 600;
    const step = Math.min(26, (width - LEFT) / Math.max(list.length, 20));
    const y = (ms) => HEIGHT - BOTTOM - (Math.min(ms, most) / most) * (HEIGHT - TOP - BOTTOM);
    this.scale(most, y, width);
    keyed(
      this.bars,
      cut,
      ({ epoch }) => epoch.epoch,
      () => this.make(),
      (node, { epoch, parts }) => this.bar(node, epoch, parts, { step, most, y }),
    );
    [...this.bars.children].forEach((node, at) =>
      attr(node, "transform", `translate(${(LEFT + at * step).toFixed(1)} 0)`),
    );
    if (this.disclosure.open) this.table.update(list);
    attr(this.canvas, "class", list.length === 0 ? "none" : null);
    put(byId("epochs-said"), this.said(epochs));
  }

  said({ recent, minted, committed, latency_p50_ms, latency_p99_ms }) {
    if (recent.length === 0) return "No epoch has had anything in it yet.";
    const flying = recent.filter((epoch) => (epoch.committed_ms ?? null) === null).length;
    const newest =
      minted > committed
        ? `, the newest committed is ${duration(minted - committed)} older than the newest minted`
        : "";
    return `${count(flying)} in flight${newest}. Minted to committed: p50 ${duration(latency_p50_ms)}, p99 ${duration(latency_p99_ms)}.`;
  }

  scale(most, y, width) {
    const marks = [0, most / 2, most];
    keyed(
      this.axis,
      marks.map((ms, at) => ({ ms, at })),
      ({ at }) => at,
      () =>
        svg("g", {}, svg("line", { x1: LEFT - 4 }), svg("text", { x: LEFT - 8, "text-anchor": "end", dy: "0.32em" })),
      (node, { ms }) => {
        const [line, text] = node.children;
        attr(line, "x2", String(width));
        attr(node, "transform", `translate(0 ${y(ms).toFixed(1)})`);
        put(text, duration(ms));
      },
    );
  }

  make() {
    const node = svg("g", { class: "epoch" }, svg("title"));
    for (const [stage] of STAGES) node.append(svg("rect", { class: stage }));
    node.append(svg("path", { class: "cut" }));
    return node;
  }

  bar(node, epoch, parts, { step, most, y }) {
    const [title, ...rects] = node.children;
    const above = rects.pop();
    const width = Math.max(1, step - (step > 5 ? 2 : 0.5)).toFixed(1);
    rects.forEach((rect, at) => {
      const part = parts[at];
      const height = part ? Math.max(part.to > part.from ? 0.6 : 0, y(part.from) - y(part.to)) : 0;
      attr(rect, "height", height.toFixed(1));
      attr(rect, "width", width);
      attr(rect, "y", part ? y(part.to).toFixed(1) : "0");
      attr(rect, "data-open", part?.open ? "" : null);
    });
    const middle = Number(width) / 2;
    attr(
      above,
      "d",
      parts.at(-1).to > most ? `M${middle - 4} ${TOP - 2}L${middle} ${TOP - 9}L${middle + 4} ${TOP - 2}Z` : null,
    );
    const told = parts.map((part) => `${part.stage} ${part.open ? "waited for, " : ""}${duration(part.to)}`);
    put(title, `epoch ${epoch.epoch}: ${told.join(", ")}`);
  }
}
