// The header and the banner: which job it is, how it is, and what holds it.

import { attr, byId, el, keyed, put, show } from "./dom.js";
import { UNKNOWN, bounds, brief, count, duration, plural, words } from "./format.js";

const LEVELS = { running: "ok", idle: "ok", ended: "", ending: "busy" };

/** What is known of a culprit beside its detail. */
function about(one) {
  const at = `process ${one.process}${one.worker === undefined || one.worker === null ? "" : `, worker ${one.worker}`}`;
  const quiet = one.quiet_ms < one.since_ms ? `, nothing moved for ${duration(one.quiet_ms)}` : "";
  const facts = [
    one.name,
    at,
    one.range && `range ${bounds(one.range)}`,
    one.epoch && `epoch ${one.epoch}`,
    `for ${duration(one.since_ms)}${quiet}`,
  ];
  return facts.filter(Boolean).join(" · ");
}

function culprit() {
  const [kind, facts, detail] = [el("span", { class: "chip" }), el("span"), el("p")];
  const node = el("li", {}, kind, " ", facts, detail);
  node.parts = [kind, facts, detail];
  return node;
}

function fillCulprit(node, one) {
  const [kind, facts, detail] = node.parts;
  put(kind, words(one.kind));
  attr(kind, "data-level", one.first ? "bad" : "warn");
  put(facts, about(one));
  put(detail, brief(one.detail));
}

/** What the banner says first. */
function verdict({ state, stalled, culprit: found }) {
  if (found?.kind === "failed") return state === "ended" ? "The run has failed and ended" : "The run has failed";
  if (stalled) return `Stalled by: ${words(found?.kind ?? "unknown")}`;
  return state === "running" || state === "idle" ? "Nothing holds it" : words(state);
}

export function showHolds(report) {
  const { holds } = report;
  const all = [holds.culprit && { ...holds.culprit, first: true }, ...(holds.also ?? [])].filter(Boolean);
  const banner = byId("banner");
  const plain = holds.state === "running" || holds.state === "idle";
  attr(banner, "data-level", holds.stalled ? "bad" : plain ? "ok" : "busy");
  put(byId("verdict"), verdict(holds));
  put(byId("sentence"), brief(holds.sentence));
  put(byId("ask"), holds.ask ? `This process knows only of itself. Ask ${holds.ask} for the whole job.` : "");
  byId("causes").hidden = all.length === 0;
  put(
    byId("causes-title"),
    all.length === 1 ? "What holds it" : `What holds it, and ${plural(all.length - 1, "other thing")} beside`,
  );
  keyed(byId("cause-list"), all, (one, at) => at, culprit, fillCulprit);
  // Said aloud only when it is another cause, not whenever its time has grown.
  const cause = [holds.state, holds.stalled, holds.culprit?.kind, holds.culprit?.name, holds.culprit?.process].join();
  if (cause !== banner.cause) put(byId("said"), brief(holds.sentence));
  banner.cause = cause;
}

export function showJob(report) {
  const { job, holds, at_ms } = report;
  const name = job.name || "a job without a name";
  put(byId("job-name"), name);
  document.title = `${holds.stalled ? "⚠ " : ""}${name} · ${words(holds.state)} · Tidefeed`;
  put(byId("state"), words(holds.state));
  attr(byId("state"), "data-level", holds.stalled ? "bad" : (LEVELS[holds.state] ?? "busy"));
  attr(byId("state"), "title", `for ${duration(job.state_for_ms)}`);
  show(byId("state-for"), holds.state === "ended" ? "" : `for ${duration(job.state_for_ms)}`);
  show(byId("generation"), count(job.generation), "the checkpoint is not taken over yet");
  show(
    byId("size"),
    job.processes > 0 ? `${plural(job.processes, "process", "processes")}, ${plural(job.workers, "worker")}` : UNKNOWN,
    "the job has not said",
  );
  show(
    byId("uptime"),
    job.started_at_ms > 0 ? duration(Math.max(0, at_ms - job.started_at_ms)) : UNKNOWN,
    "the job has not said",
  );
  show(byId("version"), job.version || UNKNOWN, "the job has not said");
  show(byId("teller"), `process ${job.process}`);
}
