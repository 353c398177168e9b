// Reports as they come: a stream of events that is read with fetch, as only that can carry a token.
//
// 1. The token is in a header and in this tab's sessionStorage, never in an address.
// 2. A stream that ends, fails or says nothing is opened anew, after a pause that grows until a report comes.

const TOKEN = "tidefeed-token";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
/** A stream that says nothing for so long is opened anew. */
const SILENCE_MS = 10_000;

/** Takes the events out of a text that comes in pieces. `on` is given the data of each. */
export function events(on) {
  let rest = "";
  return (piece) => {
    rest += piece;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (lines.length > 0) on(lines.map((line) => line.slice(line[5] === " " ? 6 : 5)).join("\n"));
    }
  };
}

export class Feed {
  /** `on.reports` gets what has come, oldest first; `on.refused` that a token is wanted; `on.trouble` why there is no word. */
  constructor(on) {
    this.on = on;
    this.pause_ms = FIRST_PAUSE_MS;
    this.waiting = null;
  }

  start() {
    clearTimeout(this.waiting);
    this.read().then(
      () => this.again("The job has ended the stream."),
      (error) => (error.refused ? this.refused(error.given) : this.again(error.message)),
    );
  }

  refused(given) {
    sessionStorage.removeItem(TOKEN);
    this.on.refused(given);
  }

  /** Keeps a token, and begins anew with it. */
  enter(token) {
    sessionStorage.setItem(TOKEN, token);
    this.pause_ms = FIRST_PAUSE_MS;
    this.start();
  }

  again(why) {
    this.on.trouble(why);
    this.waiting = setTimeout(() => this.start(), this.pause_ms);
    this.pause_ms = Math.min(this.pause_ms * 2, LONGEST_PAUSE_MS);
  }

  async read() {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
    const stop = new AbortController();
    const guard = () => setTimeout(() => stop.abort(new Error("The job says nothing.")), SILENCE_MS);
    let silence = guard();
    try {
      const answer = await fetch("events", {
        headers,
        signal: stop.signal,
        cache: "no-store",
        credentials: "same-origin",
      });
      if (answer.status === 401) throw Object.assign(new Error("refused"), { refused: true, given: token !== null });
      if (!answer.ok) throw new Error(`The job answers ${answer.status}.`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let found = [];
      const take = events((data) => found.push(data));
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = guard();
        take(value);
        if (found.length > 0) {
          this.pause_ms = FIRST_PAUSE_MS;
          this.on.reports(found);
          found = [];
        }
      }
    } finally {
      clearTimeout(silence);
      stop.abort();
    }
  }
}
