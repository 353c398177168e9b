// The dataflow as a tree of scopes, what each of them measures, and what of it is seen. Pure; it knows nothing of drawing.
//
// 1. The dataflow itself is the outermost scope and not drawn.
// 2. A run of operators of which each only feeds the next is a chain: one more kind of scope, of the page's own.
// 3. A channel is cut at the border of every scope that it crosses. A piece within a closed scope is not seen.

import { layered } from "./layout.js";

/** With more operators scopes are closed at first, and chains are made. */
const MANY = 60;
const SHORTEST_CHAIN = 3;
export const SIZE = { w: 176, h: 60 };
const GAP = { gapX: 36, gapY: 14 };
const PAD = { side: 18, top: 34, bottom: 14 };

/** Changes only if other operators or channels are there. */
export function fingerprint(graph) {
  const operators = graph.operators.map((one) =>
    [one.id, one.scope, one.is_scope, one.source, one.sink, one.name].join(),
  );
  return `${operators.join(";")}|${graph.channels.map((one) => `${one.from}>${one.to}${one.exchanged}`).join(";")}`;
}

/** Where an operator is: the names of the scopes around it. */
export function within(node) {
  const names = [];
  for (let one = node.parent; one && !one.root; one = one.parent) if (!one.isChain) names.unshift(one.name);
  return names.join(" / ");
}

export class Dataflow {
  constructor(graph) {
    this.byId = new Map();
    this.opened = new Map();
    this.leaves = [];
    this.root = { key: "", name: "", children: [], parent: null, isScope: true, root: true };
    this.many = graph.operators.length > MANY;
    for (const op of graph.operators) {
      const node = { key: String(op.id), op, name: op.name, children: [], parent: null, isScope: op.is_scope };
      this.byId.set(node.key, node);
      if (!op.is_scope) this.leaves.push(node);
    }
    for (const node of this.byId.values()) this.adopt(this.byId.get(String(node.op.scope)) ?? this.root, node);
    const [only] = this.root.children;
    if (this.root.children.length === 1 && only.isScope) {
      this.root = only;
      only.root = true;
    }
    this.nodes = [...this.byId.values()];
    if (this.many) this.chain(graph.channels);
    this.cut(graph.channels);
    this.inside = [];
    const visit = (node) => {
      node.children.forEach(visit);
      this.inside.push(node);
    };
    visit(this.root);
  }

  adopt(parent, node) {
    node.parent = parent === node ? this.root : parent;
    node.parent.children.push(node);
  }

  /** Makes chains, within each scope. */
  chain(channels) {
    const out = new Map();
    const into = new Map();
    const add = (map, key, to) => map.set(key, (map.get(key) ?? new Set()).add(to));
    for (const { from, to } of channels) {
      add(out, String(from), String(to));
      add(into, String(to), String(from));
    }
    const plain = (node) => node && !node.isScope && !node.op.source && !node.op.sink;
    const follower = (node) => {
      const [next] = out.get(node.key) ?? [];
      const found = this.byId.get(next);
      const alone = out.get(node.key)?.size === 1 && into.get(next)?.size === 1;
      return alone && plain(found) && found.parent === node.parent && !found.chained ? found : null;
    };
    const leads = new Set(this.leaves.filter(plain).map(follower).filter(Boolean));
    for (const first of this.leaves) {
      if (!plain(first) || leads.has(first)) continue;
      const members = [];
      for (let one = first; one; one = follower(one)) {
        one.chained = true;
        members.push(one);
      }
      if (members.length >= SHORTEST_CHAIN) this.enclose(members);
    }
  }

  enclose(members) {
    const { parent } = members[0];
    const name = `${members[0].name} → ${members.at(-1).name}`;
    const chain = { key: `chain-${members[0].key}`, name, children: members, parent, isScope: true, isChain: true };
    parent.children.splice(parent.children.indexOf(members[0]), 1, chain);
    const gone = new Set(members);
    parent.children = parent.children.filter((one) => !gone.has(one));
    members.forEach((one) => (one.parent = chain));
    this.byId.set(chain.key, chain);
    this.nodes.push(chain);
  }

  /** Cuts the channels at borders. A piece whose end is its own scope begins or ends at the border. */
  cut(channels) {
    const pieces = new Map();
    const above = (node) => {
      const path = [];
      for (let one = node; one; one = one.parent) path.push(one);
      return path;
    };
    const piece = (scope, a, b, at) => {
      if (scope.root && (a === scope || b === scope)) return;
      const key = `${scope.key}|${a.key}|${b.key}`;
      if (!pieces.has(key)) pieces.set(key, { scope, a, b, channels: [] });
      pieces.get(key).channels.push(at);
    };
    channels.forEach(({ from, to }, at) => {
      const a = this.byId.get(String(from));
      const b = this.byId.get(String(to));
      if (!a || !b) return;
      const ups = above(a);
      const downs = above(b);
      const common = ups.find((one) => downs.includes(one));
      if (!common) return;
      const left = ups.slice(0, ups.indexOf(common));
      const right = downs.slice(0, downs.indexOf(common));
      left.slice(1).forEach((scope, n) => piece(scope, left[n], scope, at));
      right.slice(1).forEach((scope, n) => piece(scope, scope, right[n], at));
      piece(common, left.at(-1) ?? common, right.at(-1) ?? common, at);
    });
    this.pieces = [...pieces.values()];
    for (const one of this.pieces) (one.scope.pieces ??= []).push(one);
  }

  isOpen(node) {
    return node.root || (node.isScope && (this.opened.get(node.key) ?? (!node.isChain && !this.many)));
  }

  /** The innermost that is seen and is or holds this one. */
  seen(node) {
    let found = node;
    for (let one = node.parent; one && !one.root; one = one.parent) if (!this.isOpen(one)) found = one;
    return found;
  }

  /** Takes the numbers of a report with the same operators. */
  measure(graph) {
    for (const op of graph.operators) this.byId.get(String(op.id)).op = op;
    this.channels = graph.channels;
    let busiest = null;
    for (const node of this.inside) {
      node.now = node.isScope ? together(node) : alone(node);
      if (!node.isScope && (!busiest || node.op.busiest_share > busiest.op.busiest_share)) busiest = node;
    }
    this.busiest = busiest;
  }

  /** Places everything that is seen, from the innermost scope outwards. Returns the boxes, the pieces with their points, and the size. */
  place() {
    const seen = { boxes: [], lines: [] };
    const size = this.placeScope(this.root, seen);
    const shift = (scope, x, y) => {
      for (const box of scope.boxes ?? []) {
        box.x += x;
        box.y += y;
        if (box.open) shift(box.node, box.x, box.y);
      }
      for (const line of scope.lines ?? []) {
        line.points = line.points.map(([a, b]) => [a + x, b + y]);
        line.below += y;
      }
    };
    shift(this.root, 0, 0);
    return { ...seen, ...size };
  }

  placeScope(scope, seen) {
    const boxes = scope.children.map((node) => {
      const open = this.isOpen(node);
      const inner = open ? this.placeScope(node, seen) : null;
      return { node, open, w: inner ? inner.width : SIZE.w, h: inner ? inner.height : SIZE.h };
    });
    const index = new Map(boxes.map((box, at) => [box.node, at]));
    const pieces = scope.pieces ?? [];
    const all = [...boxes];
    const side = (name) => all.push({ side: name, w: 0, h: 8 }) - 1;
    const starts = pieces.some((one) => one.a === scope) ? side("in") : null;
    const ends = pieces.some((one) => one.b === scope) ? side("out") : null;
    const edges = pieces.map((piece) => ({ piece, a: index.get(piece.a) ?? starts, b: index.get(piece.b) ?? ends }));
    const size = layered(all, edges, GAP);
    const pad = scope.root ? { side: 8, top: 8, bottom: 8 } : PAD;
    const width = Math.max(size.width, SIZE.w - 2 * pad.side) + 2 * pad.side;
    const port = (at, otherwise) => (at === null ? otherwise : all[at].y + pad.top);
    const height = Math.max(size.height, 8) + pad.top + pad.bottom;
    scope.ports = { in: port(starts, height / 2), out: port(ends, height / 2) };
    scope.boxes = boxes;
    for (const box of boxes) {
      box.x += pad.side - box.w / 2;
      box.y += pad.top - box.h / 2;
    }
    scope.lines = edges.map((edge) => line(edge, all, pad, width, starts, ends));
    seen.boxes.push(...boxes);
    seen.lines.push(...scope.lines);
    return { width, height };
  }
}

function line(edge, all, pad, width, starts, ends) {
  const from = all[edge.a];
  const to = all[edge.b];
  const begin =
    edge.a === starts
      ? [0, from.y + pad.top]
      : [from.x + from.w, from.y + (from.open ? from.node.ports.out : from.h / 2)];
  const end = edge.b === ends ? [width, to.y + pad.top] : [to.x, to.y + (to.open ? to.node.ports.in : to.h / 2)];
  const bends = edge.points.map(([x, y]) => [x + pad.side, y + pad.top]);
  // What goes back does so below both.
  const below = Math.max(from.y + from.h, to.y + to.h) + 8;
  return { piece: edge.piece, back: edge.back === true, below, points: [begin, ...bends, end] };
}

function alone(node) {
  const { op } = node;
  return {
    busy: op.busy_share,
    busiest: op.busiest_share,
    rate: op.records_in_per_s,
    records: op.records_in,
    lag: op.frontier_lag_ms ?? null,
    queued: op.queued,
    rows: op.arranged_rows ?? null,
    bytes: op.arranged_bytes ?? null,
    operators: 1,
  };
}

const most = (list, name) =>
  list.reduce((found, one) => (one[name] !== null && (found === null || one[name] > found) ? one[name] : found), null);
const total = (list, name) =>
  list.reduce((found, one) => (one[name] === null ? found : (found ?? 0) + one[name]), null);

/** Of a scope: what the job says of it itself, and the rest from what is in it. */
function together(node) {
  const list = node.children.map((one) => one.now);
  const first = node.isChain ? list[0] : null;
  return {
    busy: node.op?.busy_share ?? total(list, "busy"),
    busiest: most([{ busiest: node.op?.busiest_share ?? null }, ...list], "busiest"),
    rate: node.op?.records_in_per_s ?? first?.rate ?? null,
    records: node.op?.records_in ?? first?.records ?? null,
    lag: most(list, "lag"),
    queued: total(list, "queued") ?? 0,
    rows: total(list, "rows"),
    bytes: total(list, "bytes"),
    operators: total(list, "operators") ?? 0,
  };
}
