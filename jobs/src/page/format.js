// Numbers as text. What is not known is a dash.

export const UNKNOWN = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Three digits or so. */
function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return "<0.01";
  return value.toFixed(size < 1 ? 2 : size < 10 ? 1 : 0).replace(/\.0+$/, "");
}

function scaled(value, step, units) {
  let unit = 0;
  while (Math.abs(value) >= step - 0.5 && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return [unit > 0 && Math.abs(value) < 99.95 ? value.toFixed(1) : digits(value), units[unit]];
}

/** A whole number, all its digits. */
export const count = (value) => (known(value) ? grouped.format(value) : UNKNOWN);

/** A number in few characters: 12.3k. */
export function short(value) {
  return known(value) ? scaled(value, 1000, ["", "k", "M", "G", "T"]).join("") : UNKNOWN;
}

export const rate = (value) => (known(value) ? `${short(value)}/s` : UNKNOWN);

export function bytes(value) {
  return known(value) ? scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"]).join(" ") : UNKNOWN;
}

export const byteRate = (value) => (known(value) ? `${bytes(value)}/s` : UNKNOWN);

export const ru = (value) => (known(value) ? `${short(value)} RU/s` : UNKNOWN);

/** Of processors. */
export const cores = (value) =>
  known(value) ? `${value.toFixed(2)} ${value.toFixed(2) === "1.00" ? "core" : "cores"}` : UNKNOWN;

export function share(value) {
  if (!known(value)) return UNKNOWN;
  const percent = value * 100;
  return `${percent > 0 && percent < 0.1 ? "<0.1" : percent.toFixed(percent < 9.95 && percent > 0 ? 1 : 0)} %`;
}

/** A length of time, in the two largest units. */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 999.5) return `${digits(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (large, small, of) => [Math.floor(seconds / large), Math.floor((seconds % large) / small), of];
  const [a, b, of] =
    seconds < 3600
      ? two(60, 1, ["min", "s"])
      : seconds < 86_400
        ? two(3600, 60, ["h", "min"])
        : two(86_400, 3600, ["d", "h"]);
  return b === 0 ? `${a} ${of[0]}` : `${a} ${of[0]} ${b} ${of[1]}`;
}

/** How long ago something was, by the job's clock. */
export function ago(at_ms, now_ms) {
  return known(at_ms) ? `${duration(Math.max(0, now_ms - at_ms))} ago` : UNKNOWN;
}

/** A moment, as a title. */
export function moment(at_ms) {
  return known(at_ms) ? new Date(at_ms).toISOString() : "";
}

/** `caught-up` as `caught up`. */
export const words = (name) => String(name ?? UNKNOWN).replaceAll("-", " ");

/** A feed range without the zeros that its long bounds end with, which say nothing: 20-30 for 2000…-3000…. */
export function bounds(range) {
  if (!/^[0-9A-F]*-[0-9A-F]+$/.test(range) || range.length < 30) return range;
  return range.replace(/([0-9A-F]{2}(?:[0-9A-F]{2})*?)(?:00)+(?=-|$)/g, "$1");
}

/** A sentence with such ranges in it. */
export const brief = (text) => text.replace(/(?<=^|\s)[0-9A-F]*-[0-9A-F]+(?=[\s:;,]|$)/g, bounds);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** The sum of what is known; null if nothing is. */
export function sum(list, of) {
  const values = list.map(of).filter(known);
  return values.length === 0 ? null : values.reduce((a, b) => a + b, 0);
}

/** The largest of what is known; null if nothing is. */
export function largest(list, of) {
  const values = list.map(of).filter(known);
  return values.length === 0 ? null : values.reduce((a, b) => Math.max(a, b));
}
