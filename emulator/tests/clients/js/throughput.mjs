// Throughput of containers and databases, manual and autoscale.

import { randomUUID } from "node:crypto";
import { after } from "node:test";
import { assert, client, container, test, theDatabase } from "./common.mjs";

async function databaseWith(throughput) {
  const { database } = await client.databases.create({ id: `js-${randomUUID().slice(0, 8)}`, ...throughput });
  after(() => database.delete());
  return database;
}

/** Reads the offer of a container or database, changes its content, and returns what a new read says. */
async function changed(owner, change) {
  const { resource, offer } = await owner.readOffer();
  change(resource.content);
  const reply = await offer.replace(resource);
  assert.equal(reply.statusCode, 200);
  assert.equal(reply.resource.id, resource.id);
  return (await owner.readOffer()).resource.content;
}

test("manual, of a container", async () => {
  const items = await container({ throughput: 500 });
  const { resource } = await items.readOffer();
  assert.equal(resource.content.offerThroughput, 500);
  assert.equal(resource.content.offerAutopilotSettings, undefined);
  const { resource: properties } = await items.read();
  assert.deepEqual([resource.resource, resource.offerResourceId], [properties._self, properties._rid]);
  const content = await changed(items, (content) => (content.offerThroughput = 1200));
  assert.equal(content.offerThroughput, 1200);
});

test("autoscale, of a container", async () => {
  const items = await container({ maxThroughput: 4000 });
  assert.equal((await items.readOffer()).resource.content.offerAutopilotSettings.maxThroughput, 4000);
  const content = await changed(items, (content) => (content.offerAutopilotSettings.maxThroughput = 7000));
  assert.equal(content.offerAutopilotSettings.maxThroughput, 7000);
});

test("manual, of a database", async () => {
  const database = await databaseWith({ throughput: 800 });
  assert.equal((await database.readOffer()).resource.content.offerThroughput, 800);
  const content = await changed(database, (content) => (content.offerThroughput = 900));
  assert.equal(content.offerThroughput, 900);
});

test("autoscale, of a database", async () => {
  const database = await databaseWith({ maxThroughput: 4000 });
  const content = await changed(database, (content) => (content.offerAutopilotSettings.maxThroughput = 6000));
  assert.equal(content.offerAutopilotSettings.maxThroughput, 6000);
});

test("a database without throughput has no offer", async () => {
  assert.equal((await theDatabase().readOffer()).resource, undefined);
});

test("a container may share that of its database", async () => {
  const database = await databaseWith({ throughput: 800 });
  const { container: shared } = await database.containers.create({ id: "shared", partitionKey: "/pk" });
  const { container: own } = await database.containers.create({ id: "own", partitionKey: "/pk", throughput: 400 });
  assert.equal((await shared.readOffer()).resource, undefined);
  assert.equal((await own.readOffer()).resource.content.offerThroughput, 400);
});

test("all offers can be listed", async () => {
  const items = await container({ throughput: 1100 });
  const { resource } = await items.read();
  const { resources } = await client.offers.readAll().fetchAll();
  const found = resources.find((offer) => offer.resource === resource._self);
  assert.equal(found.content.offerThroughput, 1100);
  assert.equal((await client.offer(found.id).read()).resource.content.offerThroughput, 1100);
});
