// The sinks: what they write, and what keeps them from writing more.

import { attr, byId, el, keyed, meter, put, show } from "./dom.js";
import { UNKNOWN, count, duration, plural, rate, ru, share, words } from "./format.js";
import { Table } from "./table.js";

const throttle = (value) => (value > 0.3 ? "bad" : value > 0.05 ? "warn" : "");

const COLUMNS = [
  { name: "Partition", words: true, value: (row) => row.partition, text: (row) => row.partition },
  { name: "Documents", value: (row) => row.documents_per_s, text: (row) => rate(row.documents_per_s) },
  { name: "Written", value: (row) => row.ru_per_s, text: (row) => ru(row.ru_per_s) },
  { name: "In flight", value: (row) => row.in_flight, text: (row) => count(row.in_flight) },
  { name: "Throttled", value: (row) => row.throttled_share, text: (row) => share(row.throttled_share) },
];

/** Name, text, what is not known if it is a dash, and how bad it is. */
const FACTS = [
  ["Documents", (sink) => rate(sink.documents_per_s)],
  ["Requests", (sink) => rate(sink.requests_per_s)],
  ["In flight", (sink) => (count(sink.in_flight) === UNKNOWN ? UNKNOWN : plural(sink.in_flight, "request"))],
  ["Oldest batch at the target", (sink) => duration(sink.writing_ms), "nothing is being written"],
  ["Throttled", (sink) => share(sink.throttled_share), null, (sink) => throttle(sink.throttled_share)],
  ["Upserts", (sink) => count(sink.upserts)],
  ["Deletes", (sink) => count(sink.deletes)],
  ["Ignored", (sink) => count(sink.ignored)],
  ["Dead letters", (sink) => count(sink.dead_letters), null, (sink) => (sink.dead_letters > 0 ? "bad" : "")],
  ["Used in all", (sink) => `${count(sink.ru)} RU`],
];

class SinkPart {
  constructor(sink) {
    this.kind = el("p", { class: "chips" });
    this.budget = el("span", { class: "number" });
    this.meter = meter(`RU of the budget of ${sink.name}`);
    this.values = FACTS.map(() => el("dd"));
    const list = FACTS.map(([name], at) => el("div", {}, el("dt", {}, name), this.values[at]));
    this.table = new Table({
      caption: `Physical partitions of ${sink.name}`,
      columns: COLUMNS,
      sort: { at: 4, down: true },
      key: (row) => row.partition,
      limit: 100,
    });
    this.summary = el("summary");
    this.disclosure = el("details", {}, this.summary, this.table.node);
    this.disclosure.addEventListener("toggle", () => this.last && this.update(this.last));
    const budget = el("div", { class: "budget" }, this.meter, this.budget);
    this.node = el(
      "article",
      { class: "part sink" },
      el("header", {}, el("h3", {}, sink.name), this.kind),
      budget,
      el("dl", { class: "grid" }, ...list),
      this.disclosure,
    );
    this.node.shows = this;
  }

  update(sink) {
    this.last = sink;
    put(this.kind, words(sink.kind));
    this.showBudget(sink);
    FACTS.forEach(([, text, unknown, level], at) => {
      show(this.values[at], text(sink), unknown);
      attr(this.values[at], "data-level", level?.(sink) || null);
    });
    this.disclosure.hidden = sink.partitions.length === 0;
    const throttled = sink.partitions.filter((one) => throttle(one.throttled_share)).length;
    put(
      this.summary,
      `${plural(sink.partitions.length, "physical partition")}${throttled > 0 ? `, ${count(throttled)} throttled` : ""}`,
    );
    if (this.disclosure.open) this.table.update(sink.partitions);
  }

  showBudget({ ru_per_s, ru_budget_per_s }) {
    const limited = ru_budget_per_s > 0;
    this.meter.hidden = !limited;
    const part = limited ? ru_per_s / ru_budget_per_s : 0;
    const text = limited
      ? `${ru(ru_per_s)} of ${ru(ru_budget_per_s)} (${share(part)})`
      : `${ru(ru_per_s)}, no budget is set`;
    put(this.budget, text);
    this.meter.fill(part, text, part > 0.95 ? "warn" : null);
  }
}

export function showSinks({ sinks }) {
  keyed(
    byId("sink-list"),
    sinks,
    (sink) => sink.name,
    (sink) => new SinkPart(sink).node,
    (node, sink) => node.shows.update(sink),
  );
  put(byId("sinks-empty"), sinks.length === 0 ? "No sink is known yet." : "");
}
