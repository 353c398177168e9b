// The operators as a table: the same as the graph for whoever does not see it.

import { within } from "./dataflow.js";
import { byId, el, put } from "./dom.js";
import { count, duration, rate, share } from "./format.js";
import { Table } from "./table.js";

export function operatorTable(graph) {
  const nameCell = (th, { node }) => {
    let button = th.firstChild;
    if (!button) {
      button = el("button", { type: "button", class: "link", onclick: () => graph.choose(button.key, true) });
      th.append(button);
    }
    button.key = node.key;
    put(button, node.name);
  };
  const unknownLag = "no frontier is known, or it is empty";
  const columns = [
    { name: "Operator", words: true, value: ({ node }) => node.name, cell: nameCell },
    { name: "Busy", value: ({ op }) => op.busy_share, text: ({ op }) => share(op.busy_share) },
    {
      name: "Busiest",
      value: ({ op }) => op.busiest_share,
      text: ({ op }) => share(op.busiest_share),
      title: () => "of the busiest worker's time",
    },
    {
      name: "Records in",
      value: ({ op }) => op.records_in_per_s,
      text: ({ op }) => rate(op.records_in_per_s),
      title: ({ op }) => `${count(op.records_in)} in all`,
    },
    {
      name: "Lag",
      value: ({ op }) => op.frontier_lag_ms ?? null,
      text: ({ op }) => duration(op.frontier_lag_ms),
      unknown: unknownLag,
    },
    {
      name: "Queued",
      value: ({ op }) => op.queued,
      text: ({ op }) => count(op.queued),
      title: () => "records that came and were not taken yet",
    },
    {
      name: "Arranged rows",
      value: ({ op }) => op.arranged_rows ?? null,
      text: ({ op }) => count(op.arranged_rows),
      unknown: "it arranges nothing",
      title: () => "rows in its batches; what cancels out counts until they are merged",
    },
    {
      name: "In",
      words: true,
      value: ({ where }) => where,
      text: ({ where }) => where || "–",
      unknown: "the dataflow itself",
    },
  ];
  const table = new Table({
    caption: "Operators",
    columns,
    sort: { at: 2, down: true },
    key: ({ node }) => node.key,
    limit: 50,
  });
  byId("operator-table").append(table.node);
  let [flow, rows] = [null, []];
  return {
    update(model) {
      if (model !== flow) rows = model.leaves.map((node) => ({ node, where: within(node), op: node.op }));
      flow = model;
      for (const row of rows) row.op = row.node.op;
      table.node.hidden = rows.length === 0;
      table.update(rows);
    },
  };
}
