// Elements. Whatever a job has named is set as text, never as markup.

import { UNKNOWN } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

function built(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** An element with attributes, listeners (`onclick`) and children. */
export const el = (tag, attributes, ...children) => built(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const svg = (tag, attributes, ...children) => built(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Sets the text if it is another. */
export function put(node, text) {
  if (node.shown !== text) {
    node.shown = text;
    node.textContent = text;
  }
}

/** Sets an attribute if it is another; null takes it away. */
export function attr(node, name, value) {
  const held = (node.held ??= {});
  if (held[name] === value) return;
  held[name] = value;
  if (value === null || value === undefined) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

/** Shows a text. A dash says in its title what is not known; else the title is `more`. */
export function show(node, text, unknown, more = null) {
  put(node, text);
  attr(node, "title", text === UNKNOWN ? (unknown ?? "not known") : more);
  attr(node, "data-unknown", text === UNKNOWN ? "" : null);
}

/** How full something is, with what it says beside. */
export function meter(label) {
  const bar = el("span", { class: "meter-bar" });
  const node = el(
    "span",
    { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    bar,
  );
  node.fill = (part, text, level = null) => {
    const percent = Math.round(Math.max(0, Math.min(1, part ?? 0)) * 100);
    attr(node, "aria-valuenow", String(percent));
    attr(node, "aria-valuetext", text);
    attr(node, "data-level", level);
    if (bar.percent !== percent) bar.style.setProperty("width", `${percent}%`);
    bar.percent = percent;
  };
  return node;
}

/** Keeps one node for each key, in the order of `rows`; `make` makes one, `update` shows a row in it. */
export function keyed(parent, rows, key, make, update) {
  const nodes = (parent.nodes ??= new Map());
  const wanted = new Set();
  rows.forEach((row, at) => {
    const name = key(row, at);
    wanted.add(name);
    let node = nodes.get(name);
    if (!node) nodes.set(name, (node = make(row)));
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
    update(node, row);
  });
  for (const [name, node] of nodes) {
    if (wanted.has(name)) continue;
    node.remove();
    nodes.delete(name);
  }
}
