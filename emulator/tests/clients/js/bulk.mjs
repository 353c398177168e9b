// Bulk: many operations over all partitions, each with an outcome of its own.

import { assert, container, rangeIds, split, strip, test, upTo } from "./common.mjs";

const create = (n, more = {}) => ({
  operationType: "Create",
  partitionKey: `p${n % 97}`,
  resourceBody: { id: `i${n}`, pk: `p${n % 97}`, n, ...more },
});
const count = async (items) => (await items.items.query("SELECT c.id FROM c").fetchAll()).resources.length;

/** Operations of every kind on items that exist, do not exist, or have changed; with the statuses they must get. */
async function mixture(items) {
  const tags = {};
  for (const id of ["read", "replaced", "deleted", "patched", "tagged", "there"])
    tags[id] = (await items.items.create({ id, pk: id, n: 1 })).etag;
  const on = (operationType, id, more = {}) => ({ operationType, id, partitionKey: id, ...more });
  const body = (id) => ({ resourceBody: { id, pk: id, n: 2 } });
  return [
    [{ operationType: "Create", partitionKey: "new", ...body("new") }, 201],
    [{ operationType: "Create", partitionKey: "there", ...body("there") }, 409],
    [{ operationType: "Upsert", partitionKey: "there", ...body("there") }, 200],
    [{ operationType: "Upsert", partitionKey: "other", ...body("other") }, 201],
    [on("Read", "read"), 200],
    [on("Read", "nothing"), 404],
    [on("Replace", "replaced", body("replaced")), 200],
    [on("Replace", "missing", body("missing")), 404],
    [on("Replace", "tagged", { ...body("tagged"), ifMatch: "\"stale\"" }), 412],
    [on("Replace", "tagged", { ...body("tagged"), ifMatch: tags.tagged }), 200],
    [on("Delete", "deleted"), 204],
    [on("Delete", "absent"), 404],
    [on("Patch", "patched", { resourceBody: { operations: [{ op: "incr", path: "/n", value: 1 }] } }), 200],
    [on("Patch", "void", { resourceBody: { operations: [{ op: "incr", path: "/n", value: 1 }] } }), 404],
    [
      on("Patch", "patched", {
        resourceBody: { operations: [{ op: "incr", path: "/n", value: 1 }], condition: "from c where c.n = 77" },
      }),
      412,
    ],
  ];
}

test("executeBulkOperations: 1,500 operations, answered in order", async () => {
  const items = await container();
  const operations = upTo(1500).map((n) => create(n));
  const replies = await items.items.executeBulkOperations(operations);
  assert.equal(replies.length, 1500);
  for (const [n, reply] of replies.entries()) {
    assert.equal(reply.error, undefined, `operation ${n}: ${reply.error?.code} ${reply.error?.message}`);
    assert.equal(reply.response.statusCode, 201);
    assert.deepEqual(strip(reply.response.resourceBody), operations[n].resourceBody);
    assert.equal(reply.response.eTag, reply.response.resourceBody._etag);
    assert.ok(reply.response.requestCharge > 0);
  }
  assert.equal(await count(items), 1500);
});

test("executeBulkOperations: failures stay with their operations", async () => {
  const items = await container();
  const expected = await mixture(items);
  const replies = await items.items.executeBulkOperations(expected.map(([operation]) => operation));
  const found = replies.map((reply) => reply.response?.statusCode ?? reply.error.code);
  assert.deepEqual(found, expected.map(([, status]) => status));
  assert.deepEqual(strip(replies[4].response.resourceBody), { id: "read", pk: "read", n: 1 });
  assert.equal((await items.item("patched", "patched").read()).resource.n, 2);
  assert.equal((await items.item("deleted", "deleted").read()).statusCode, 404);
});

test("executeBulkOperations: one key, in the order given", async () => {
  const items = await container();
  const operations = upTo(50).map((n) => ({
    operationType: "Upsert",
    partitionKey: "p",
    resourceBody: { id: "a", pk: "p", n },
  }));
  const replies = await items.items.executeBulkOperations(operations);
  assert.deepEqual(replies.map((reply) => reply.response.statusCode), [201, ...Array(49).fill(200)]);
  assert.equal((await items.item("a", "p").read()).resource.n, 49);
});

test("executeBulkOperations: across a split", async () => {
  const items = await container();
  await items.items.executeBulkOperations(upTo(100).map((n) => create(n)));
  // The client has the map of before, and learns of the split from the refusal.
  for (const id of await rangeIds(items)) await split(items, id);
  const replies = await items.items.executeBulkOperations(upTo(500).map((n) => create(n + 100)));
  const failures = replies.filter((reply) => reply.error);
  assert.deepEqual(failures, []);
  assert.equal(await count(items), 600);
  assert.equal((await rangeIds(items)).length, 8);
});

test("items.bulk: 1,200 operations, answered in order", async () => {
  const items = await container();
  // One call takes at most 100 operations for a physical partition.
  for (const call of upTo(10)) {
    const numbers = upTo(120).map((n) => 120 * call + n);
    const replies = await items.items.bulk(numbers.map((n) => create(n)));
    assert.deepEqual(replies.map((reply) => reply.statusCode), Array(120).fill(201));
    assert.deepEqual(replies.map((reply) => reply.resourceBody.n), numbers);
  }
  assert.equal(await count(items), 1200);
});

test("items.bulk: failures stay with their operations", async () => {
  const items = await container();
  const expected = await mixture(items);
  const replies = await items.items.bulk(expected.map(([operation]) => operation));
  assert.deepEqual(replies.map((reply) => reply.statusCode), expected.map(([, status]) => status));
});

test("items.bulk: without continuing, what follows a failure is not carried out", async () => {
  const items = await container();
  const at = (operationType, id) => ({ operationType, partitionKey: "p", resourceBody: { id, pk: "p" } });
  const operations = [at("Create", "a"), at("Create", "a"), at("Create", "b")];
  const replies = await items.items.bulk(operations, { continueOnError: false });
  assert.deepEqual(replies.map((reply) => reply.statusCode), [201, 409, 424]);
  assert.equal(await count(items), 1);
});

test("items.bulk: across a split", async () => {
  const items = await container();
  await items.items.bulk(upTo(50).map((n) => create(n)));
  for (const id of await rangeIds(items)) await split(items, id);
  const replies = await items.items.bulk(upTo(200).map((n) => create(n + 50)));
  assert.deepEqual(replies.map((reply) => reply.statusCode), Array(200).fill(201));
  assert.equal(await count(items), 250);
});

test("items.bulk: hierarchical keys and no key", async () => {
  const items = await container({}, ["/tenant", "/user"]);
  const operations = upTo(40).map((n) => ({
    operationType: "Create",
    partitionKey: [`t${n % 3}`, n],
    resourceBody: { id: `i${n}`, tenant: `t${n % 3}`, user: n },
  }));
  const replies = await items.items.bulk(operations);
  assert.deepEqual(replies.map((reply) => reply.statusCode), Array(40).fill(201));
  assert.equal((await items.item("i7", ["t1", 7]).read()).resource.user, 7);
});
