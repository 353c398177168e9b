// The change feed in AllVersionsAndDeletes mode: every version, every delete, every expiry.

import { ChangeFeedMode, ChangeFeedStartFrom } from "@azure/cosmos";
import { advanceClock, assert, container, drain, fresh, rangeIds, refused, split, strip, test, upTo } from "./common.mjs";

const changeFeedMode = ChangeFeedMode.AllVersionsAndDeletes;
const from = (changeFeedStartFrom, more = {}) => ({ changeFeedMode, changeFeedStartFrom, ...more });
const resume = (token, more) => from(ChangeFeedStartFrom.Continuation(token), more);
const gist = ({ metadata, current }) => [metadata.operationType, current?.id ?? metadata.id];
const text = (changes) => changes.map((change) => gist(change).join(" "));

/** The token of the present. */
async function now(items, scope) {
  const [changes, token] = await drain(items, from(ChangeFeedStartFrom.Now(scope)));
  assert.deepEqual(changes, []);
  return token;
}

/** Checks one envelope; returns its LSN. A missing side is absent, null or an empty object. */
function check({ current, previous, metadata }, operation, expectedCurrent, expectedPrevious) {
  assert.equal(metadata.operationType, operation);
  assert.ok(Number.isInteger(metadata.lsn) && Number.isInteger(metadata.crts));
  assert.deepEqual(strip(current), expectedCurrent ?? {});
  assert.deepEqual(strip(previous), expectedPrevious ?? {});
  if (operation === "create") assert.ok(!metadata.previousImageLSN);
  else assert.ok(metadata.previousImageLSN < metadata.lsn);
  return metadata.lsn;
}

test("create, replace and delete", async () => {
  const items = await container();
  await items.items.create({ id: "before", pk: "p" });
  const start = await now(items);
  const [one, two, three] = [1, 2, 3].map((n) => ({ id: "a", pk: "p", n }));
  const item = items.item("a", "p");
  const stamps = [await items.items.create(one), await item.replace(two), await items.items.upsert(three)];
  await item.delete();

  const [changes, token] = await drain(items, resume(start));
  assert.deepEqual(text(changes), ["create a", "replace a", "replace a", "delete a"]);
  const lsns = [
    check(changes[0], "create", one, undefined),
    check(changes[1], "replace", two, one),
    check(changes[2], "replace", three, two),
    check(changes[3], "delete", undefined, three),
  ];
  assert.deepEqual(lsns, [...new Set(lsns)].sort((a, b) => a - b));
  assert.deepEqual(changes.slice(1).map((change) => change.metadata.previousImageLSN), lsns.slice(0, 3));
  for (const [index, stamp] of stamps.entries()) {
    assert.equal(changes[index].current._etag, stamp.resource._etag);
    assert.equal(changes[index].metadata.crts, stamp.resource._ts);
  }
  const { metadata } = changes[3];
  assert.deepEqual([metadata.id, metadata.partitionKey], ["a", { pk: "p" }]);
  assert.ok(!metadata.timeToLiveExpired);
  assert.deepEqual((await drain(items, resume(token)))[0], []);
});

test("expiry", async () => {
  const items = await container({ defaultTtl: -1 });
  const start = await now(items);
  const brief = { id: "brief", pk: "p", ttl: 2 };
  await items.items.create({ id: "kept", pk: "p" });
  await items.items.create(brief);
  await advanceClock(5_000);
  const [changes] = await drain(items, resume(start));
  assert.deepEqual(text(changes), ["create kept", "create brief", "delete brief"]);
  check(changes[2], "delete", undefined, brief);
  const { metadata } = changes[2];
  assert.equal(metadata.timeToLiveExpired, true);
  assert.deepEqual([metadata.id, metadata.partitionKey], ["brief", { pk: "p" }]);
});

test("it starts now or at a continuation, and nowhere else", async () => {
  const items = await container();
  const read = (start) => items.items.getChangeFeedIterator(from(start)).readNext();
  await refused(read(ChangeFeedStartFrom.Beginning()), 400);
  await refused(read(ChangeFeedStartFrom.Time(new Date(Date.now() - 60_000))), 400);
});

test("resume in the middle and at the end of a container", async () => {
  const items = await container();
  let token = await now(items);
  for (const round of upTo(3)) {
    for (const n of upTo(20)) await items.items.upsert({ id: `i${n}`, pk: `p${n}`, round });
    const first = await items.items.getChangeFeedIterator(resume(token, { maxItemCount: 3 })).readNext();
    const [rest, end] = await drain(fresh(items), resume(first.continuationToken, { maxItemCount: 3 }));
    const changes = [...first.result, ...rest];
    const operation = round === 0 ? "create" : "replace";
    assert.deepEqual(text(changes).sort(), upTo(20).map((n) => `${operation} i${n}`).sort());
    assert.ok(changes.every((change) => change.current.round === round));
    token = end;
  }
});

test("per feed range and per partition key", async () => {
  const items = await container();
  const tokens = [];
  for (const range of await items.getFeedRanges()) tokens.push(await now(items, range));
  const ofKey = await now(items, "p1");
  for (const n of upTo(12)) await items.items.create({ id: `i${n}`, pk: `p${n % 6}` });
  await items.item("i1", "p1").delete();
  await items.item("i2", "p2").delete();
  const changes = [];
  for (const token of tokens) changes.push(...(await drain(items, resume(token)))[0]);
  const expected = [...upTo(12).map((n) => `create i${n}`), "delete i1", "delete i2"];
  assert.deepEqual(text(changes).sort(), expected.sort());
  assert.deepEqual(text((await drain(items, resume(ofKey)))[0]), ["create i1", "create i7", "delete i1"]);
});

test("a live iterator and a token go on across splits", async () => {
  const items = await container();
  const token = await now(items);
  const expected = [];
  async function write(first, last) {
    for (const n of upTo(last - first).map((n) => n + first)) {
      const [id, pk] = [`i${n}`, `p${n}`];
      await items.items.create({ id, pk });
      await items.items.upsert({ id, pk, again: true });
      expected.push(`create ${id}`, `replace ${id}`);
      if (n % 3 !== 0) continue;
      await items.item(id, pk).delete();
      expected.push(`delete ${id}`);
    }
  }
  await write(0, 20);
  const iterator = items.items.getChangeFeedIterator(resume(token, { maxItemCount: 4 }));
  const seen = [...(await iterator.readNext()).result];
  for (const id of await rangeIds(items)) await split(items, id);
  await write(20, 40);
  for (let page = await iterator.readNext(); page.statusCode === 200; page = await iterator.readNext())
    seen.push(...page.result);
  const [again] = await drain(fresh(items), resume(token, { maxItemCount: 4 }));
  for (const changes of [seen, again]) {
    assert.deepEqual(text(changes).sort(), [...expected].sort());
    for (const n of upTo(40)) {
      const order = text(changes).filter((line) => line.endsWith(` i${n}`)).map((line) => line.split(" ")[0]);
      assert.deepEqual(order, ["create", "replace", "delete"].slice(0, n % 3 === 0 ? 3 : 2));
    }
  }
});

test("a batch and a bulk request appear version by version", async () => {
  const items = await container();
  const start = await now(items);
  await items.items.batch(
    [
      { operationType: "Create", resourceBody: { id: "a", pk: "p", n: 1 } },
      { operationType: "Replace", id: "a", resourceBody: { id: "a", pk: "p", n: 2 } },
      { operationType: "Delete", id: "a" },
    ],
    "p",
  );
  const [batch, token] = await drain(items, resume(start, { maxItemCount: 1 }));
  assert.deepEqual(text(batch), ["create a", "replace a", "delete a"]);
  assert.equal(new Set(batch.map((change) => change.metadata.lsn)).size, 1);
  const upsert = (n) => ({ operationType: "Upsert", partitionKey: "p", resourceBody: { id: "b", pk: "p", n } });
  await items.items.bulk([upsert(1), upsert(2), { operationType: "Delete", id: "b", partitionKey: "p" }]);
  const [bulk] = await drain(items, resume(token));
  assert.deepEqual(text(bulk), ["create b", "replace b", "delete b"]);
});
