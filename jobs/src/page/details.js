// What is known of the chosen operator.

import { within } from "./dataflow.js";
import { byId, el, put, show } from "./dom.js";
import { UNKNOWN, bytes, count, duration, moment, plural, rate, share } from "./format.js";

/** `go` is called with the key of an operator that is to be chosen, or null. */
export class Details {
  constructor() {
    this.host = byId("details");
    this.key = undefined;
  }

  update(flow, node, lagging_ms) {
    if (this.flow !== flow || this.key !== node?.key) this.build(flow, node);
    this.flow = flow;
    this.key = node?.key;
    if (!node) return;
    const { now, op } = node;
    const set = (name, text, unknown) => show(this.values[name], text, unknown);
    set("Busy", share(now.busy), "not measured yet");
    set("Busiest worker", share(now.busiest), "not measured yet");
    set("Records in", count(now.records), "not counted for this");
    set("Rate in", rate(now.rate), "not measured for this");
    set("Queued", plural(now.queued, "record"));
    show(
      this.values.Frontier,
      op?.frontier ? `epoch ${op.frontier}` : UNKNOWN,
      "no frontier is known, or it is empty",
      moment(op?.frontier),
    );
    set("Frontier lag", duration(now.lag), "no frontier is known, or it is empty");
    this.values["Frontier lag"].dataset.level = now.lag > lagging_ms ? "bad" : "";
    set("Arranged rows", count(now.rows), "it arranges nothing");
    set("Arranged", bytes(now.bytes), "it arranges nothing, or does not say how large that is");
    this.links.forEach(([node_, channel]) => put(node_, rate(flow.channels[channel].records_per_s)));
  }

  build(flow, node) {
    this.values = {};
    this.links = [];
    this.host.hidden = !node;
    if (!node) {
      this.host.replaceChildren();
      return;
    }
    const { op } = node;
    const shut = el(
      "button",
      {
        type: "button",
        class: "shut",
        "aria-label": "Close what is known of the operator",
        onclick: () => this.go(null),
      },
      "×",
    );
    const what = op?.source
      ? `source ${op.source}`
      : op?.sink
        ? `sink ${op.sink}`
        : node.isChain
          ? "chain"
          : node.isScope
            ? "scope"
            : "operator";
    const where = within(node);
    const list = el("dl", {});
    for (const name of [
      "Busy",
      "Busiest worker",
      "Records in",
      "Rate in",
      "Queued",
      "Frontier",
      "Frontier lag",
      "Arranged rows",
      "Arranged",
    ]) {
      this.values[name] = el("dd");
      list.append(el("div", {}, el("dt", {}, name), this.values[name]));
    }
    const about = [what, op && `number ${op.id}`, where && `in ${where}`].filter(Boolean).join(", ");
    const members = node.isScope ? node.children.map((one) => [one, null]) : [];
    this.host.replaceChildren(
      shut,
      el("h3", {}, node.name),
      el("p", { class: "hint" }, about),
      list,
      ...this.ends(flow, "From", op, "to", "from"),
      ...this.ends(flow, "To", op, "from", "to"),
      ...this.list("Holds", members),
    );
  }

  ends(flow, title, op, here, there) {
    if (!op) return [];
    const ends = [];
    flow.channels.forEach((channel, at) => {
      const other = flow.byId.get(String(channel[there]));
      if (channel[here] === op.id && other && !other.root) ends.push([other, at]);
    });
    return this.list(title, ends);
  }

  list(title, ends) {
    if (ends.length === 0) return [];
    const items = ends.slice(0, 30).map(([other, channel]) => {
      const flowing = el("span", { class: "number" });
      if (channel !== null) this.links.push([flowing, channel]);
      return el(
        "li",
        {},
        el("button", { type: "button", class: "link", onclick: () => this.go(other.key) }, other.name),
        " ",
        flowing,
      );
    });
    if (ends.length > items.length) items.push(el("li", {}, `and ${count(ends.length - items.length)} more`));
    return [el("h4", {}, title), el("ul", {}, ...items)];
  }
}
