// The page: takes reports from the feed and shows each part of them, and says when what is shown is old.

import { Details } from "./details.js";
import { attr, byId, put } from "./dom.js";
import { Feed } from "./feed.js";
import { Figures } from "./figures.js";
import { duration } from "./format.js";
import { Graph } from "./graph.js";
import { showHolds, showJob } from "./holds.js";
import { Machine } from "./machine.js";
import { operatorTable } from "./operators.js";
import { showSinks } from "./sinks.js";
import { showSources } from "./sources.js";
import { startTheme } from "./theme.js";
import { Timeline } from "./timeline.js";

/** The form of report that this page reads. */
const FORM = 1;
const OLD_MS = 5000;
const KEPT_UPDATES = 600;

const graph = new Graph(new Details());
const figures = new Figures();
const timeline = new Timeline();
const machine = new Machine();
const operators = operatorTable(graph);
/** For tests: how long each report took to show, milliseconds, and the last of them. */
const seen = (window.tidefeed = { updates: [], report: null, failures: [] });
let heard = performance.now();
let why = "";
let shown = false;

/** The job has ended: with it went what it counted, and most likely nobody answers any more. */
const over = (report) => report?.holds.state === "ended";

/** A part that fails leaves the others alone. */
function part(show) {
  try {
    show();
  } catch (error) {
    seen.failures.push(String(error.stack));
    console.error(error);
  }
}

function display(report) {
  document.body.dataset.known = "";
  attr(byId("form"), "hidden", report.form === FORM ? "" : null);
  put(
    byId("form"),
    report.form === FORM
      ? ""
      : `The job tells form ${report.form} of its report, and this page reads form ${FORM}. Load the page again.`,
  );
  part(() => showJob(report));
  part(() => showHolds(report));
  // What was shown last stays.
  if (over(report) && shown) return;
  shown = true;
  part(() => figures.show());
  part(() => operators.update(graph.update(report)));
  part(() => showSources(report));
  part(() => showSinks(report));
  part(() => timeline.update(report));
  part(() => machine.update(report));
}

function reports(list) {
  const begun = performance.now();
  let report = null;
  for (const text of list) {
    report = JSON.parse(text);
    if (!over(report) || !shown) figures.keep(report);
  }
  heard = begun;
  why = "";
  byId("door").hidden = true;
  seen.report = report;
  // Nobody sees it; what is kept is shown once somebody does.
  if (document.hidden) return;
  display(report);
  age();
  seen.updates.push(performance.now() - begun);
  if (seen.updates.length > KEPT_UPDATES) seen.updates.shift();
}

/** Says when there is no word or the job has ended, and greys what is shown. */
function age() {
  const old_ms = performance.now() - heard;
  const ended = over(seen.report);
  const old = (ended || old_ms > OLD_MS) && byId("door").hidden;
  document.body.toggleAttribute("data-old", old);
  document.body.toggleAttribute("data-ended", old && ended);
  byId("old").hidden = !old;
  if (!old) {
    put(byId("old-said"), "");
    return;
  }
  const whole = (ms) => duration(Math.floor(ms / 1000) * 1000);
  if (ended) {
    const ago = whole(seen.report.job.state_for_ms + old_ms);
    put(byId("old-text"), `The job ended ${ago} ago. Figures are those before. A new start at this address is shown here.`);
    put(byId("old-said"), "The job has ended.");
    return;
  }
  const shown = seen.report ? " What is shown is as old." : "";
  put(byId("old-text"), `No word from the job for ${whole(old_ms)}.${shown} ${why}`);
  put(byId("old-said"), "No word from the job. What is shown is old.");
}

function refused(wrong) {
  byId("door").hidden = false;
  put(byId("door-said"), wrong ? "The job does not know this token." : "");
  byId("token").focus();
  age();
}

const feed = new Feed({ reports, refused, trouble: (text) => (why = text) });
byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  byId("token").value = "";
  if (token !== "") feed.enter(token);
});
document.addEventListener("visibilitychange", () => !document.hidden && seen.report && display(seen.report));
startTheme();
setInterval(age, 1000);
feed.start();
