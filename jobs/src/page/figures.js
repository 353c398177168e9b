// The row of key figures, each with the last two minutes as a line.

import { attr, byId, el, put, show, svg } from "./dom.js";
import { UNKNOWN, byteRate, count, duration, largest, moment, plural, share, short, sum } from "./format.js";

const KEPT_MS = 120_000;
const [WIDTH, HEIGHT] = [120, 26];

/** The number, its unit, and what it is when nothing is known. */
const number = (value, unit) => ({ value, text: short(value), unit });
const time = (value) => ({ value, text: duration(value), unit: "" });

function recordsIn({ sources }) {
  return {
    ...number(
      sum(sources, (one) => one.records_per_s),
      "/s",
    ),
    note: byteRate(sum(sources, (one) => one.bytes_per_s)),
  };
}

function documentsOut({ sinks }) {
  const written = sum(sinks, (one) => one.upserts + one.deletes);
  return {
    ...number(
      sum(sinks, (one) => one.documents_per_s),
      "/s",
    ),
    note: `${short(written)} so far`,
  };
}

function ruRead({ sources }) {
  return {
    ...number(
      sum(sources, (one) => one.ru_per_s),
      "RU/s",
    ),
    note: `${short(sum(sources, (one) => one.ru))} RU so far`,
  };
}

function ruWritten({ sinks }) {
  const used = number(
    sum(sinks, (one) => one.ru_per_s),
    "RU/s",
  );
  const budgets = sinks.map((one) => one.ru_budget_per_s);
  const budget = budgets.every((one) => one > 0) ? sum(sinks, (one) => one.ru_budget_per_s) : null;
  return {
    ...used,
    note: budget ? `${share(used.value / budget)} of the budgets` : `${short(sum(sinks, (one) => one.ru))} RU so far`,
  };
}

function behind({ sources }) {
  const ranges = sources.flatMap((source) => source.ranges);
  if (ranges.length === 0) return { value: null, text: UNKNOWN, unit: "" };
  const late = ranges.filter((range) => range.behind_ms === null || range.behind_ms === undefined);
  const most = largest(ranges, (range) => range.behind_ms);
  if (late.length === 0) return { ...time(most), note: "the range furthest behind" };
  const remaining = sum(late, (range) => range.remaining);
  const left = remaining === null ? "" : `, ${short(remaining)} changes left`;
  return {
    value: null,
    text: "catching up",
    unit: "",
    level: "warn",
    note: `${count(late.length)} of ${plural(ranges.length, "range")}${left}`,
  };
}

function throttled({ sinks }) {
  const requests = sum(sinks, (sink) => sink.requests_per_s);
  const turned = sum(sinks, (sink) => sink.requests_per_s * sink.throttled_share);
  const value = sinks.length === 0 ? null : requests > 0 ? turned / requests : 0;
  const level = value > 0.3 ? "bad" : value > 0.05 ? "warn" : null;
  return { value, text: share(value), unit: "", level, note: "of the requests to sinks" };
}

function dead({ sinks, sources }) {
  const value = sum([...sinks, ...sources], (one) => one.dead_letters);
  return { value, text: count(value), unit: "", level: value > 0 ? "bad" : null, note: "since the process began" };
}

function sinceCommit({ checkpoint, at_ms }) {
  const at = checkpoint.last_commit_at_ms ?? null;
  const value = at === null ? null : Math.max(0, at_ms - at);
  return { ...time(value), title: moment(at), note: `${count(checkpoint.commits)} so far` };
}

const FIGURES = [
  ["Records in", recordsIn, "no source is known"],
  ["Documents out", documentsOut, "no sink is known"],
  ["Behind the sources", behind, "no feed range is read"],
  [
    "Oldest uncommitted epoch",
    ({ epochs }) => ({
      ...time(epochs.oldest_ms ?? null),
      note: `latency p50 ${duration(epochs.latency_p50_ms || null)}, p99 ${duration(epochs.latency_p99_ms || null)}`,
    }),
    "no epoch is uncommitted",
  ],
  ["Since the last commit", sinceCommit, "nothing is committed yet"],
  ["Read", ruRead, "no source is known"],
  ["Written", ruWritten, "no sink is known"],
  ["Throttled", throttled, "no sink is known"],
  ["Dead letters", dead, "no sink or source is known"],
];

class Figure {
  constructor(name, of, unknown) {
    Object.assign(this, { of, unknown, kept: [] });
    this.value = el("span", { class: "value" });
    this.unit = el("span", { class: "unit" });
    this.note = el("p", { class: "note" });
    this.path = svg("path");
    this.area = svg("path", { class: "area" });
    const spark = svg(
      "svg",
      { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.path,
    );
    this.node = el(
      "div",
      { class: "figure" },
      el("h3", {}, name),
      el("p", {}, this.value, " ", this.unit),
      this.note,
      spark,
    );
  }

  /** Keeps what a report says, without showing it. */
  keep(report) {
    this.last = this.of(report);
    this.kept.push([report.at_ms, this.last.value]);
    while (this.kept[0][0] < report.at_ms - KEPT_MS || this.kept[0][0] > report.at_ms) this.kept.shift();
  }

  show() {
    const { text, unit, note, level, title } = this.last;
    show(this.value, text, this.unknown, title);
    put(this.unit, text === UNKNOWN ? "" : unit);
    put(this.note, text === UNKNOWN ? "" : (note ?? ""));
    attr(this.node, "data-level", level ?? null);
    this.draw();
  }

  draw() {
    const now = this.kept.at(-1)[0];
    const known = this.kept.filter(([, value]) => value !== null);
    const most = known.reduce((found, [, value]) => Math.max(found, value), 0) || 1;
    const x = (at) => (WIDTH * (1 - (now - at) / KEPT_MS)).toFixed(1);
    const points = known.map(([at, value]) => `${x(at)} ${(HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1)}`);
    attr(this.path, "d", points.length > 1 ? `M${points.join("L")}` : null);
    attr(
      this.area,
      "d",
      points.length > 1 ? `M${x(known[0][0])} ${HEIGHT}L${points.join("L")}L${x(known.at(-1)[0])} ${HEIGHT}Z` : null,
    );
  }
}

export class Figures {
  constructor() {
    this.all = FIGURES.map((figure) => new Figure(...figure));
    byId("figures").append(...this.all.map((figure) => figure.node));
  }

  keep(report) {
    this.all.forEach((figure) => figure.keep(report));
  }

  show() {
    this.all.forEach((figure) => figure.show());
  }
}
