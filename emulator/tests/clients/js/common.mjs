// What every script shares: a client, a container of its own for each test, and the server's admin calls.
// The address and the key come from COSMOS_ENDPOINT and COSMOS_KEY.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, test } from "node:test";
import { CosmosClient, PartitionKeyKind } from "@azure/cosmos";

export const endpoint = process.env.COSMOS_ENDPOINT.replace(/\/$/, "");
export const key = process.env.COSMOS_KEY;
export const client = new CosmosClient({ endpoint, key });
export { assert, test };

const short = () => randomUUID().slice(0, 8);
const { database } = await client.databases.create({ id: `js-${short()}` });

after(async () => {
  await database.delete();
  client.dispose();
});

/** The database of this script. */
export const theDatabase = () => database;

/** A new container with the partition key paths `paths` (default `/pk`). */
export async function container(definition = {}, paths = ["/pk"]) {
  const partitionKey = {
    paths,
    version: 2,
    kind: paths.length > 1 ? PartitionKeyKind.MultiHash : PartitionKeyKind.Hash,
  };
  const made = await database.containers.create({ id: `c-${short()}`, partitionKey, ...definition });
  return made.container;
}

/** The same container through a client that has nothing cached. */
export function fresh(items, options = {}) {
  const other = new CosmosClient({ endpoint, key, ...options });
  after(() => other.dispose());
  return other.database(database.id).container(items.id);
}

/** One admin call, which needs no signature; returns the JSON reply. */
export async function admin(path, body = {}) {
  const reply = await fetch(`${endpoint}/_emulator/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await reply.text();
  assert.equal(reply.status, 200, `POST /_emulator/${path}: ${text}`);
  return JSON.parse(text);
}

/** Moves the server's clock forward. */
export const advanceClock = (milliseconds) => admin("clock", { advance_ms: milliseconds });

/** Ids of the container's physical partitions, in the order of their key ranges. */
export async function rangeIds(items) {
  const { resources } = await items.readPartitionKeyRanges().fetchAll();
  const byStart = (a, b) => (a.minInclusive < b.minInclusive ? -1 : 1);
  return resources.sort(byStart).map((range) => range.id);
}

/** Splits one physical partition in two. */
export const split = (items, rangeId) =>
  admin(`dbs/${database.id}/colls/${items.id}/ranges/${rangeId}/split`);

/** Merges neighbouring physical partitions. */
export const merge = (items, ...ranges) =>
  admin(`dbs/${database.id}/colls/${items.id}/merge`, { ranges });

/** The promise must be refused with this status, and substatus if given; returns the error. */
export async function refused(promise, status, substatus) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, `the call succeeded instead of failing with ${status}`);
  assert.equal(error.code, status, error.stack);
  if (substatus !== undefined) assert.equal(error.substatus, substatus, error.stack);
  return error;
}

/** An item without the properties that the server adds. */
export const strip = (item) =>
  Object.fromEntries(Object.entries(item ?? {}).filter(([name]) => !name.startsWith("_")));

export const ids = (items) => items.map((item) => item.id);

/** `[0, 1, .., count - 1]` */
export const upTo = (count) => [...Array(count).keys()];

/** Reads a change feed until it has nothing more; returns the changes and the token to go on with. */
export async function drain(items, options) {
  const iterator = items.items.getChangeFeedIterator(options);
  const changes = [];
  for (;;) {
    const page = await iterator.readNext();
    changes.push(...page.result);
    if (page.statusCode === 304) return [changes, page.continuationToken];
    assert.equal(page.statusCode, 200);
  }
}
