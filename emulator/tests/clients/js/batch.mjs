// Transactional batches: all or nothing.

import { assert, container, ids, test, upTo } from "./common.mjs";

const all = async (items) => (await items.items.query("SELECT * FROM c ORDER BY c.id").fetchAll()).resources;
const statuses = (reply) => reply.result.map((one) => one.statusCode);

test("success", async () => {
  const items = await container();
  await items.items.create({ id: "old", pk: "p", n: 1 });
  await items.items.create({ id: "gone", pk: "p" });
  const reply = await items.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "new", pk: "p" } },
      { operationType: "Upsert", resourceBody: { id: "other", pk: "p" } },
      { operationType: "Replace", id: "old", resourceBody: { id: "old", pk: "p", n: 2 } },
      { operationType: "Read", id: "old" },
      { operationType: "Delete", id: "gone" },
    ],
    "p",
  );
  assert.equal(reply.code, 200);
  assert.deepEqual(statuses(reply), [201, 201, 200, 200, 204]);
  assert.equal(reply.result[3].resourceBody.n, 2);
  assert.equal(reply.result[0].eTag, (await items.item("new", "p").read()).etag);
  assert.deepEqual(ids(await all(items)), ["new", "old", "other"]);
});

test("a failure is 207 and leaves nothing", async () => {
  const items = await container();
  await items.items.create({ id: "there", pk: "p", n: 1 });
  const reply = await items.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "new", pk: "p" } },
      { operationType: "Replace", id: "there", resourceBody: { id: "there", pk: "p", n: 2 } },
      { operationType: "Create", resourceBody: { id: "there", pk: "p" } },
      { operationType: "Delete", id: "there" },
    ],
    "p",
  );
  assert.equal(reply.code, 207);
  assert.deepEqual(statuses(reply), [424, 424, 409, 424]);
  assert.deepEqual((await all(items)).map(({ id, n }) => [id, n]), [["there", 1]]);
});

test("if-match", async () => {
  const items = await container();
  const { etag } = await items.items.create({ id: "a", pk: "p", n: 1 });
  const fresh = (await items.items.upsert({ id: "a", pk: "p", n: 2 })).etag;
  const replace = (ifMatch) => [
    { operationType: "Create", resourceBody: { id: "b", pk: "p" } },
    { operationType: "Replace", id: "a", ifMatch, resourceBody: { id: "a", pk: "p", n: 3 } },
  ];
  const stale = await items.items.batch(replace(etag), "p");
  assert.deepEqual([stale.code, ...statuses(stale)], [207, 424, 412]);
  assert.deepEqual((await all(items)).map(({ id, n }) => [id, n]), [["a", 2]]);
  assert.deepEqual(statuses(await items.items.batch(replace(fresh), "p")), [201, 200]);
});

test("patch", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p", n: 1 });
  const operations = [{ op: "incr", path: "/n", value: 4 }, { op: "add", path: "/new", value: "x" }];
  const condition = "from c where c.n = 1";
  const bare = [{ operationType: "Patch", id: "a", resourceBody: [{ op: "incr", path: "/n", value: 0 }] }];
  assert.deepEqual(statuses(await items.items.batch(bare, "p")), [200]);
  const done = await items.items.batch([{ operationType: "Patch", id: "a", resourceBody: { operations, condition } }], "p");
  assert.deepEqual(statuses(done), [200]);
  assert.deepEqual([done.result[0].resourceBody.n, done.result[0].resourceBody.new], [5, "x"]);
  const unmet = await items.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "b", pk: "p" } },
      { operationType: "Patch", id: "a", resourceBody: { operations, condition } },
    ],
    "p",
  );
  assert.deepEqual([unmet.code, ...statuses(unmet)], [207, 424, 412]);
  assert.deepEqual(ids(await all(items)), ["a"]);
});

test("without content responses", async () => {
  const items = await container();
  const reply = await items.items.batch([{ operationType: "Create", resourceBody: { id: "a", pk: "p" } }], "p", {
    contentResponseOnWriteEnabled: false,
  });
  assert.deepEqual(statuses(reply), [201]);
  assert.equal(reply.result[0].resourceBody, undefined);
  assert.ok(reply.result[0].eTag);
});

test("100 operations are one batch", async () => {
  const items = await container();
  const operations = upTo(100).map((n) => ({ operationType: "Create", resourceBody: { id: `i${n}`, pk: "p" } }));
  const reply = await items.items.batch(operations, "p");
  assert.ok(reply.result.every((one) => one.statusCode === 201));
  assert.equal((await all(items)).length, 100);
});
