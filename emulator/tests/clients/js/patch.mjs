// Partial updates: as a bare array of operations, and with a condition.

import { assert, container, refused, strip, test, upTo } from "./common.mjs";

async function patched(before, ...operations) {
  const items = await container();
  await items.items.create({ id: "a", pk: "p", ...before });
  const reply = await items.item("a", "p").patch(operations);
  assert.equal(reply.statusCode, 200);
  assert.deepEqual(reply.resource, (await items.item("a", "p").read()).resource);
  const { id, pk, ...after } = strip(reply.resource);
  assert.deepEqual([id, pk], ["a", "p"]);
  return after;
}

test("add", async () => {
  assert.deepEqual(await patched({}, { op: "add", path: "/n", value: 1 }), { n: 1 });
  assert.deepEqual(await patched({ l: [1, 3] }, { op: "add", path: "/l/1", value: 2 }), { l: [1, 2, 3] });
});

test("set", async () => {
  assert.deepEqual(await patched({ n: 1 }, { op: "set", path: "/n", value: { x: [1] } }), { n: { x: [1] } });
  assert.deepEqual(await patched({}, { op: "set", path: "/n", value: null }), { n: null });
});

test("replace", async () => {
  assert.deepEqual(await patched({ o: { n: 1 } }, { op: "replace", path: "/o/n", value: 2 }), { o: { n: 2 } });
  await refused(patched({}, { op: "replace", path: "/n", value: 2 }), 400);
});

test("remove", async () => {
  assert.deepEqual(await patched({ n: 1, m: 2 }, { op: "remove", path: "/n" }), { m: 2 });
  await refused(patched({}, { op: "remove", path: "/n" }), 400);
});

test("incr", async () => {
  assert.deepEqual(await patched({ n: 1 }, { op: "incr", path: "/n", value: 41 }), { n: 42 });
  assert.deepEqual(await patched({ n: 1 }, { op: "incr", path: "/n", value: -1.5 }), { n: -0.5 });
});

test("move", async () => {
  assert.deepEqual(
    await patched({ from: { n: 1 }, to: {} }, { op: "move", from: "/from/n", path: "/to/n" }),
    { from: {}, to: { n: 1 } },
  );
});

test("several operations are all or nothing", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p", n: 1 });
  const item = items.item("a", "p");
  const { resource } = await item.patch({
    operations: [{ op: "incr", path: "/n", value: 1 }, { op: "set", path: "/m", value: "x" }],
  });
  assert.deepEqual(strip(resource), { id: "a", pk: "p", n: 2, m: "x" });
  await refused(item.patch([{ op: "incr", path: "/n", value: 1 }, { op: "remove", path: "/missing" }]), 400);
  assert.deepEqual((await item.read()).resource, resource);
});

test("a condition that does not hold is 412", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p", n: 1 });
  const body = { condition: "from c where c.n = 1", operations: [{ op: "incr", path: "/n", value: 1 }] };
  const item = items.item("a", "p");
  assert.equal((await item.patch(body)).resource.n, 2);
  await refused(item.patch(body), 412);
  assert.equal((await item.read()).resource.n, 2);
});

test("if-match", async () => {
  const items = await container();
  const { etag } = await items.items.create({ id: "a", pk: "p", n: 1 });
  const when = { accessCondition: { type: "IfMatch", condition: etag } };
  const more = [{ op: "incr", path: "/n", value: 1 }];
  const item = items.item("a", "p");
  assert.equal((await item.patch(more, when)).resource.n, 2);
  await refused(item.patch(more, when), 412);
});

test("what is refused", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p" });
  await refused(items.item("nothing", "p").patch([{ op: "set", path: "/n", value: 1 }]), 404);
  await refused(items.item("a", "p").patch([{ op: "set", path: "/pk", value: "other" }]), 400);
  await refused(items.item("a", "p").patch([{ op: "leap", path: "/n", value: 1 }]), 400);
  const eleven = upTo(11).map((n) => ({ op: "set", path: `/n${n}`, value: 1 }));
  await refused(items.item("a", "p").patch(eleven), 400);
});
