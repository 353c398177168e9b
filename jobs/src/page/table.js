// A table that is sorted by its headings and shows only so many rows, unless told otherwise.
//
// While the pointer or the focus is in it rows keep their places, so nothing moves away from under either.

import { attr, el, keyed, put, show } from "./dom.js";
import { count } from "./format.js";

/** Unknown values come last in either order. */
function compare(a, b) {
  const known = (value) => value !== null && value !== undefined;
  if (!known(a) || !known(b)) return known(b) - known(a);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

export class Table {
  /**
   * `columns`: `{ name, value(row), text(row), unknown, title(row), words, cell(td, row) }`; `value` is what is sorted by.
   * `sort`: the column to begin with and whether it is `down`; `key(row)` tells rows apart; `limit` rows are shown at first.
   */
  constructor({ caption, columns, sort, key, limit, row }) {
    Object.assign(this, { columns, sort, key, limit, decorate: row, all: false, held: false, order: [] });
    this.heads = columns.map((column, at) => this.head(column, at));
    this.body = el("tbody");
    const table = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...this.heads)), this.body);
    this.more = el("button", { type: "button", class: "more", hidden: "", onclick: () => this.toggle() });
    this.node = el(
      "div",
      { class: "table" },
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table),
      this.more,
    );
    const hold = (held) => () => (this.held = held);
    this.body.addEventListener("pointerenter", hold(true));
    this.body.addEventListener("pointerleave", hold(false));
    this.body.addEventListener("focusin", hold(true));
    this.body.addEventListener("focusout", hold(false));
  }

  head(column, at) {
    if (!column.value) return el("th", { scope: "col" }, column.name);
    const click = () => {
      const down = this.sort.at === at ? !this.sort.down : !column.words;
      this.sort = { at, down };
      this.again();
    };
    const button = el("button", { type: "button", onclick: click }, column.name);
    return el("th", { scope: "col", class: column.words ? "words" : "number" }, button);
  }

  toggle() {
    this.all = !this.all;
    this.again();
  }

  again() {
    this.held = false;
    if (this.rows) this.update(this.rows);
  }

  sorted(rows) {
    const column = this.columns[this.sort.at];
    const valued = rows.map((row) => [row, column.value(row)]);
    const down = this.sort.down ? -1 : 1;
    const known = (value) => value !== null && value !== undefined;
    valued.sort(([, a], [, b]) => (known(a) && known(b) ? down : 1) * compare(a, b));
    return valued.map(([row]) => row);
  }

  update(rows) {
    this.rows = rows;
    const keys = new Map(rows.map((row) => [this.key(row), row]));
    const keep = this.held && this.order.length > 0 && this.order.every((key) => keys.has(key));
    const ordered = keep ? this.order.map((key) => keys.get(key)) : this.sorted(rows);
    const shown = this.all || keep ? ordered : ordered.slice(0, this.limit);
    this.order = shown.map(this.key);
    this.heads.forEach((head, at) =>
      attr(head, "aria-sort", this.sort.at !== at ? null : this.sort.down ? "descending" : "ascending"),
    );
    keyed(
      this.body,
      shown,
      this.key,
      () => this.make(),
      (tr, row) => this.fill(tr, row),
    );
    this.more.hidden = rows.length <= this.limit;
    put(this.more, this.all ? `Show ${count(this.limit)}` : `Show all ${count(rows.length)}`);
  }

  make() {
    const cells = this.columns.map((column, at) =>
      el(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: column.words ? "words" : "number" }),
    );
    const tr = el("tr", {}, ...cells);
    tr.cellsOf = cells;
    return tr;
  }

  fill(tr, row) {
    this.columns.forEach((column, at) => {
      const td = tr.cellsOf[at];
      if (column.cell) column.cell(td, row);
      else show(td, column.text(row), column.unknown, column.title?.(row) ?? null);
    });
    this.decorate?.(tr, row);
  }
}
