// Carries out the operations of COSMOS_OPERATIONS by executeBulkOperations: a JSON file of
// [{container, phases: [[{operationType, partitionKey, id?, resourceBody?}]]}] in database `wire`. A partition key is an array
// of values, with an empty object for undefined. Every operation must succeed.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { CosmosClient } from "@azure/cosmos";

const { COSMOS_ENDPOINT: endpoint, COSMOS_KEY: key, COSMOS_OPERATIONS: file } = process.env;
const client = new CosmosClient({ endpoint, key });

/** One value as itself, which is how most callers write a key; several, or undefined, in an array. */
function partitionKey(values) {
  const real = values.map((value) => (value !== null && typeof value === "object" ? undefined : value));
  return real.length === 1 && real[0] !== undefined ? real[0] : real;
}

for (const { container, phases } of JSON.parse(readFileSync(file, "utf8"))) {
  const items = client.database("wire").container(container).items;
  for (const phase of phases) {
    const operations = phase.map((one) => ({ ...one, partitionKey: partitionKey(one.partitionKey) }));
    const replies = await items.executeBulkOperations(operations, { contentResponseOnWriteEnabled: false });
    for (const [index, { response, error }] of replies.entries())
      assert.ok(response?.statusCode < 300, `${JSON.stringify(phase[index])}: ${error?.code} ${error?.message}`);
  }
}
client.dispose();
