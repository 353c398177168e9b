// Feed ranges by source, the worst first.

import { attr, byId, el, keyed, put } from "./dom.js";
import { bounds, byteRate, count, duration, moment, plural, rate, ru, short, words } from "./format.js";
import { Table } from "./table.js";

/** From bad to good. */
const STATES = ["failing", "throttled", "backpressure", "reading", "caught-up"];
const LEVELS = { failing: "bad", throttled: "warn", backpressure: "warn", reading: "busy", "caught-up": "ok" };
const LIMIT = 100;

/** What comes later is worse: by state, and in a state by how far it is behind; unknown is furthest. */
function badness(range) {
  const state = STATES.length - STATES.indexOf(range.state);
  return state * 1e12 + Math.min(range.behind_ms ?? 1e11, 1e11);
}

const COLUMNS = [
  { name: "Range", words: true, value: (row) => row.range, text: (row) => bounds(row.range), title: (row) => row.range },
  { name: "State", words: true, value: badness, cell: stateCell },
  {
    name: "Behind",
    value: (row) => row.behind_ms ?? null,
    text: (row) => duration(row.behind_ms),
    unknown: "it has not caught up yet",
  },
  {
    name: "Records",
    value: (row) => row.records_per_s,
    text: (row) => rate(row.records_per_s),
    title: (row) => `${count(row.records)} in all`,
  },
  {
    name: "Read",
    value: (row) => row.ru_per_s,
    text: (row) => ru(row.ru_per_s),
    title: (row) => `${count(row.ru)} RU in all`,
  },
  {
    name: "Remaining",
    value: (row) => row.remaining ?? null,
    text: (row) => short(row.remaining),
    unknown: "the service has not said",
    title: (row) => `${count(row.remaining)} changes`,
  },
  { name: "Token age", value: (row) => row.token_age_ms, text: (row) => duration(row.token_age_ms) },
  {
    name: "Answered",
    value: (row) => row.answered_ms ?? null,
    text: (row) =>
      row.answered_ms === null || row.answered_ms === undefined ? "–" : `${duration(row.answered_ms)} ago`,
    unknown: "it has not been answered yet",
  },
  {
    name: "Errors",
    value: (row) => row.decode_errors,
    text: (row) => count(row.decode_errors),
    title: () => "records that could not be decoded",
  },
  {
    name: "At",
    words: true,
    value: (row) => row.process * 1e6 + row.worker,
    text: (row) => `process ${row.process}, worker ${row.worker}`,
  },
  {
    name: "Trouble",
    words: true,
    value: (row) => row.trouble ?? null,
    text: (row) => row.trouble ?? "–",
    unknown: "its last answers were as they should be",
    title: (row) => row.trouble,
  },
];

function stateCell(td, row) {
  const chip = td.firstChild ?? td.appendChild(el("span", { class: "chip" }));
  put(chip, words(row.state));
  attr(chip, "data-level", LEVELS[row.state] ?? "");
}

class SourcePart {
  constructor(source) {
    this.facts = el("p", { class: "facts" });
    this.states = el("p", { class: "chips" });
    this.table = new Table({
      caption: `Feed ranges of ${source.name}`,
      columns: COLUMNS,
      sort: { at: 1, down: true },
      key: (row) => `${row.range} ${row.process} ${row.worker}`,
      limit: LIMIT,
    });
    this.node = el(
      "article",
      { class: "part" },
      el("header", {}, el("h3", {}, source.name), this.states),
      this.facts,
      this.table.node,
    );
    this.node.shows = this;
  }

  update(source) {
    const facts = [
      words(source.kind),
      `${rate(source.records_per_s)} records`,
      byteRate(source.bytes_per_s),
      `${ru(source.ru_per_s)}`,
      `${count(source.records)} records in all`,
      source.decode_errors > 0 && plural(source.decode_errors, "decode error"),
      source.dead_letters > 0 && plural(source.dead_letters, "dead letter"),
      source.watermark_at_ms && `watermark ${moment(source.watermark_at_ms)}`,
    ];
    put(this.facts, facts.filter(Boolean).join(" · "));
    const counted = STATES.map((state) => ({
      state,
      n: source.ranges.filter((range) => range.state === state).length,
    }));
    keyed(
      this.states,
      counted.filter(({ n }) => n > 0),
      ({ state }) => state,
      ({ state }) => el("span", { class: "chip", "data-level": LEVELS[state] }),
      (node, { state, n }) => put(node, `${count(n)} ${words(state)}`),
    );
    this.table.node.hidden = source.ranges.length === 0;
    this.table.update(source.ranges);
  }
}

export function showSources({ sources }) {
  keyed(
    byId("source-list"),
    sources,
    (source) => source.name,
    (source) => new SourcePart(source).node,
    (node, source) => node.shows.update(source),
  );
  put(byId("sources-empty"), sources.length === 0 ? "No source is known yet." : "");
}
