// Expiry of items, and unique keys.

import { advanceClock, assert, container, ids, refused, test } from "./common.mjs";

const left = async (items) => ids((await items.items.query("SELECT * FROM c").fetchAll()).resources).sort();

test("the default of the container, and an item's own ttl", async () => {
  const items = await container({ defaultTtl: 10 });
  assert.equal((await items.read()).resource.defaultTtl, 10);
  await items.items.create({ id: "default", pk: "p" });
  await items.items.create({ id: "brief", pk: "p", ttl: 3 });
  await items.items.create({ id: "long", pk: "p", ttl: 100 });
  await items.items.create({ id: "forever", pk: "p", ttl: -1 });
  await advanceClock(5_000);
  assert.deepEqual(await left(items), ["default", "forever", "long"]);
  assert.equal((await items.item("brief", "p").read()).statusCode, 404);
  await refused(items.item("brief", "p").delete(), 404);
  await advanceClock(10_000);
  assert.deepEqual(await left(items), ["forever", "long"]);
  await advanceClock(100_000);
  assert.deepEqual(await left(items), ["forever"]);
});

test("a write starts the time again", async () => {
  const items = await container({ defaultTtl: 10 });
  await items.items.create({ id: "a", pk: "p" });
  await advanceClock(7_000);
  await items.items.upsert({ id: "a", pk: "p", n: 2 });
  await advanceClock(7_000);
  assert.deepEqual(await left(items), ["a"]);
  await advanceClock(7_000);
  assert.deepEqual(await left(items), []);
});

test("a ttl that is switched on later", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p", ttl: 50 });
  await advanceClock(3_000);
  const { resource } = await items.read();
  await items.replace({ ...resource, defaultTtl: -1 });
  assert.equal((await items.read()).resource.defaultTtl, -1);
  await advanceClock(1_000);
  assert.deepEqual(await left(items), ["a"]);
  await advanceClock(60_000);
  assert.deepEqual(await left(items), []);
});

const person = (id, email, first, last, pk = "p") => ({ id, pk, email, name: { first, last } });
const uniqueKeyPolicy = { uniqueKeys: [{ paths: ["/email"] }, { paths: ["/name/first", "/name/last"] }] };

test("a second one of a unique key is 409", async () => {
  const people = await container({ uniqueKeyPolicy });
  await people.items.create(person("1", "a@x", "Ada", "L"));
  await refused(people.items.create(person("2", "a@x", "Bob", "M")), 409);
  await refused(people.items.create(person("2", "b@x", "Ada", "L")), 409);
  await refused(people.items.upsert(person("2", "a@x", "Bob", "M")), 409);
  await people.items.create(person("2", "b@x", "Ada", "M"));
  await refused(people.item("2", "p").replace(person("2", "a@x", "Ada", "M")), 409);
  await refused(people.item("2", "p").patch([{ op: "set", path: "/email", value: "a@x" }]), 409);
  await people.items.create(person("1", "a@x", "Ada", "L", "q"));
});

test("a unique key in bulk", async () => {
  const people = await container({ uniqueKeyPolicy });
  const create = (resourceBody) => ({ operationType: "Create", partitionKey: "p", resourceBody });
  const replies = await people.items.bulk([
    create(person("1", "a@x", "Ada", "L")),
    create(person("2", "a@x", "Bob", "M")),
    create(person("3", "b@x", "Bob", "M")),
  ]);
  assert.deepEqual(replies.map((reply) => reply.statusCode), [201, 409, 201]);
});
