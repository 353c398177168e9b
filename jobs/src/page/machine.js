// The checkpoint store, and the processes with their workers.

import { attr, byId, el, keyed, meter, put, show } from "./dom.js";
import { ago, byteRate, bytes, cores, count, duration, moment, plural, share, sum, words } from "./format.js";
import { Table } from "./table.js";

const CHECKPOINT = [
  ["Location", ({ checkpoint }) => checkpoint.location || "–", "the job has not opened it yet"],
  [
    "Last commit",
    ({ checkpoint, at_ms }) => ago(checkpoint.last_commit_at_ms, at_ms),
    "nothing is committed yet",
    ({ checkpoint }) => moment(checkpoint.last_commit_at_ms),
  ],
  [
    "Last base",
    ({ checkpoint, at_ms }) => ago(checkpoint.last_base_at_ms, at_ms),
    "no base is written yet",
    ({ checkpoint }) => moment(checkpoint.last_base_at_ms),
  ],
  ["Commits", ({ checkpoint }) => count(checkpoint.commits)],
  ["Bases", ({ checkpoint }) => count(checkpoint.bases)],
  ["Seals", ({ checkpoint }) => count(checkpoint.seals)],
  ["Objects written", ({ checkpoint }) => count(checkpoint.objects_written)],
  ["Objects deleted", ({ checkpoint }) => count(checkpoint.objects_deleted)],
  ["Written", ({ checkpoint }) => byteRate(checkpoint.bytes_per_s)],
  ["Written in all", ({ checkpoint }) => bytes(checkpoint.bytes_written)],
  ["A write, p50", ({ checkpoint }) => duration(checkpoint.write_p50_ms || null), "nothing is written yet"],
  ["A write, p99", ({ checkpoint }) => duration(checkpoint.write_p99_ms || null), "nothing is written yet"],
];

const PROCESSES = [
  { name: "Process", words: true, value: (row) => row.process, text: (row) => String(row.process) },
  {
    name: "Address",
    words: true,
    value: (row) => row.address ?? null,
    text: (row) => row.address ?? "–",
    unknown: "the process that tells this",
  },
  { name: "State", words: true, value: (row) => row.state ?? null, cell: stateCell },
  {
    name: "Heard",
    value: (row) => row.heard_ms ?? null,
    text: (row) => (row.heard_ms === null || row.heard_ms === undefined ? "–" : `${duration(row.heard_ms)} ago`),
    unknown: "never heard of",
  },
  figure("CPU", (row) => row.cpu, cores),
  figure("Memory", (row) => row.memory_bytes, bytes),
  figure("Files", (row) => row.open_files, count, "open files and connections"),
  figure("Tasks", (row) => row.tokio_tasks, count),
  {
    name: "Busy",
    value: busy,
    text: (row) => share(busy(row)),
    unknown: "nothing is known of its workers",
    title: () => "mean of its workers",
  },
  { name: "Workers", words: true, cell: workersCell },
];

const WORKERS = [
  { name: "Worker", value: (row) => row.worker, text: (row) => String(row.worker) },
  { name: "Process", value: (row) => row.process, text: (row) => String(row.process) },
  { name: "Busy", value: (row) => row.busy_share, text: (row) => share(row.busy_share) },
  { name: "Queued", value: (row) => row.queued, text: (row) => plural(row.queued, "record") },
];

/** Of a process that has told its figures, if only its last. */
function figure(name, of, text, title) {
  const value = (row) => (row.state || row.memory_bytes > 0 ? of(row) : null);
  const last = (row) => (row.state ? null : "the last that it told");
  return {
    name,
    value,
    text: (row) => text(value(row)),
    unknown: "it has not told",
    title: (row) => last(row) ?? title ?? null,
  };
}

function busy(row) {
  return row.workers.length > 0 ? sum(row.workers, (worker) => worker.busy_share) / row.workers.length : null;
}

function stateCell(td, row) {
  const chip = td.firstChild ?? td.appendChild(el("span", { class: "chip" }));
  const untold = !row.state && row.missing;
  put(chip, row.state ? words(row.state) : untold ? "not told" : "no answer");
  const well = row.state === "running" || row.state === "idle";
  attr(chip, "data-level", row.missing ? "warn" : !row.state ? "bad" : well ? "ok" : "busy");
  attr(td, "title", row.missing ?? null);
}

function workersCell(td, row) {
  if (row.workers.length === 0) {
    show(td, "–", "nothing is known of its workers");
    return;
  }
  if (!td.meters) {
    put(td, "");
    attr(td, "title", null);
    td.meters = el("span", { class: "workers" });
    td.append(td.meters);
    td.shown = undefined;
  }
  const make = (worker) => meter(`Worker ${worker.worker} busy`);
  keyed(
    td.meters,
    row.workers,
    (worker) => worker.worker,
    make,
    (node, worker) => {
      const text = `worker ${worker.worker}: ${share(worker.busy_share)} busy, ${plural(worker.queued, "record")} queued`;
      node.fill(worker.busy_share, text, worker.busy_share > 0.9 ? "warn" : null);
      attr(node, "title", text);
    },
  );
}

export class Machine {
  constructor() {
    this.values = CHECKPOINT.map(() => el("dd"));
    byId("checkpoint-facts").append(
      ...CHECKPOINT.map(([name], at) =>
        el("div", { class: at === 0 ? "wide" : null }, el("dt", {}, name), this.values[at]),
      ),
    );
    this.processes = new Table({
      caption: "Processes",
      columns: PROCESSES,
      sort: { at: 0, down: false },
      key: (row) => row.process,
      limit: 50,
      row: (tr, row) => attr(tr, "data-last", row.state ? null : ""),
    });
    this.workers = new Table({
      caption: "Workers",
      columns: WORKERS,
      sort: { at: 0, down: false },
      key: (row) => row.worker,
      limit: 100,
    });
    this.disclosure = el("details", {}, el("summary", {}, "Workers"), this.workers.node);
    this.disclosure.addEventListener("toggle", () => this.list && this.workers.update(this.list));
    byId("process-list").append(this.processes.node, this.disclosure);
  }

  update(report) {
    CHECKPOINT.forEach(([, text, unknown, title], at) => show(this.values[at], text(report), unknown, title?.(report)));
    this.processes.update(report.processes);
    this.list = report.processes.flatMap((one) => one.workers.map((worker) => ({ ...worker, process: one.process })));
    this.disclosure.hidden = this.list.length === 0;
    if (this.disclosure.open) this.workers.update(this.list);
    const missing = report.processes.filter((one) => one.missing);
    const said = missing.map((one) => `Of process ${one.process} figures are missing: ${one.missing}.`);
    if (report.processes.length === 0) said.push("No process is known yet.");
    put(byId("processes-empty"), said.join(" "));
    byId("process-list").hidden = report.processes.length === 0;
  }
}
