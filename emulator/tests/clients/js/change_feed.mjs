// The change feed in LatestVersion mode: iterators, tokens, splits and merges.

import { ChangeFeedStartFrom } from "@azure/cosmos";
import { advanceClock, assert, container, drain, fresh, ids, merge, rangeIds, split, test, upTo } from "./common.mjs";

const BEGINNING = { changeFeedStartFrom: ChangeFeedStartFrom.Beginning() };
const beginningOf = (scope) => ({ changeFeedStartFrom: ChangeFeedStartFrom.Beginning(scope) });
const resume = (token, more = {}) => ({ changeFeedStartFrom: ChangeFeedStartFrom.Continuation(token), ...more });
const name = (n) => `i${String(n).padStart(3, "0")}`;

/** Creates `count` items from number `first`, one after the other; returns their ids. */
async function fill(items, count, { keys = 10, first = 0 } = {}) {
  const made = [];
  for (const n of upTo(count).map((n) => n + first)) {
    const { resource } = await items.items.create({ id: name(n), pk: `p${n % keys}`, n });
    made.push(resource);
  }
  return made;
}

/** One page, and the token to go on with. */
async function page(items, options) {
  const { result, continuationToken } = await items.items.getChangeFeedIterator(options).readNext();
  return [result, continuationToken];
}

const same = (found, expected) => assert.deepEqual(ids(found).sort(), ids(expected).sort());

test("from the beginning", async () => {
  const items = await container();
  const made = await fill(items, 40);
  const [changes] = await drain(items, { ...BEGINNING, maxItemCount: 7 });
  same(changes, made);
  assert.ok(changes.every((change) => Number.isInteger(change._lsn)));
  for (const key of new Set(changes.map((change) => change.pk))) {
    const order = changes.filter((change) => change.pk === key).map((change) => change.n);
    assert.deepEqual(order, [...order].sort((a, b) => a - b));
  }
});

test("only the newest version, and no deletes", async () => {
  const items = await container();
  await fill(items, 6, { keys: 1 });
  await items.items.upsert({ id: name(1), pk: "p0", n: 100 });
  await items.items.upsert({ id: name(1), pk: "p0", n: 101 });
  await items.item(name(2), "p0").delete();
  const [changes] = await drain(items, BEGINNING);
  assert.deepEqual(changes.map((change) => change.n), [0, 3, 4, 5, 101]);
});

test("resume in the middle and at the end of a container", async () => {
  const items = await container();
  const made = await fill(items, 60, { keys: 60 });
  const [first, middle] = await page(items, { ...BEGINNING, maxItemCount: 5 });
  assert.equal(first.length, 5);
  const [rest, end] = await drain(fresh(items), resume(middle, { maxItemCount: 5 }));
  same([...first, ...rest], made);
  assert.deepEqual((await drain(items, resume(end)))[0], []);
  const more = await fill(items, 10, { keys: 60, first: 60 });
  same((await drain(items, resume(end)))[0], more);
});

test("from now", async () => {
  const items = await container();
  await fill(items, 10);
  const [changes, token] = await drain(items, { changeFeedStartFrom: ChangeFeedStartFrom.Now() });
  assert.deepEqual(changes, []);
  const more = await fill(items, 5, { first: 10 });
  same((await drain(items, resume(token)))[0], more);
});

test("from a start time", async () => {
  const items = await container();
  await fill(items, 10);
  await advanceClock(10_000);
  const later = await fill(items, 10, { first: 10 });
  const start = new Date(Math.min(...later.map((item) => item._ts)) * 1000);
  const from = (time) => ({ changeFeedStartFrom: ChangeFeedStartFrom.Time(time), maxItemCount: 3 });
  const [changes, token] = await drain(items, from(start));
  same(changes, later);
  const more = await fill(items, 3, { first: 20 });
  same((await drain(items, resume(token)))[0], more);
  const [everything] = await drain(items, from(new Date(start.getTime() - 3_600_000)));
  assert.equal(everything.length, 23);
});

test("per feed range", async () => {
  const items = await container();
  const made = await fill(items, 40, { keys: 40 });
  const ranges = await items.getFeedRanges();
  assert.equal(ranges.length, 4);
  const seen = [];
  const tokens = [];
  for (const range of ranges) {
    const [first, token] = await page(items, { ...beginningOf(range), maxItemCount: 4 });
    assert.ok(first.length <= 4);
    const [rest, end] = await drain(items, resume(token, { maxItemCount: 4 }));
    seen.push(...first, ...rest);
    tokens.push(end);
  }
  same(seen, made);
  const more = await fill(items, 10, { keys: 40, first: 40 });
  const changes = [];
  for (const token of tokens) changes.push(...(await drain(items, resume(token)))[0]);
  same(changes, more);
});

test("per partition key", async () => {
  const items = await container();
  await fill(items, 30);
  const [changes, token] = await drain(items, beginningOf("p3"));
  assert.deepEqual(ids(changes), [name(3), name(13), name(23)]);
  await fill(items, 10, { first: 30 });
  assert.deepEqual(ids((await drain(items, resume(token)))[0]), [name(33)]);
});

test("per prefix of a hierarchical key", async () => {
  const items = await container({}, ["/tenant", "/user"]);
  for (const n of upTo(20)) await items.items.create({ id: name(n), tenant: `t${n % 2}`, user: `u${n % 5}` });
  const [prefix] = await drain(items, beginningOf(["t1"]));
  assert.deepEqual(ids(prefix).sort(), upTo(10).map((n) => name(2 * n + 1)));
  const [whole] = await drain(items, beginningOf(["t1", "u1"]));
  assert.deepEqual(ids(whole).sort(), [name(1), name(11)]);
});

test("a live iterator goes on across splits", async () => {
  const items = await container();
  const made = await fill(items, 60, { keys: 60 });
  const iterator = items.items.getChangeFeedIterator({ ...BEGINNING, maxItemCount: 4 });
  const seen = [...(await iterator.readNext()).result];
  for (const id of await rangeIds(items)) await split(items, id);
  const more = await fill(items, 30, { keys: 60, first: 60 });
  for (let page = await iterator.readNext(); page.statusCode === 200; page = await iterator.readNext())
    seen.push(...page.result);
  same(seen, [...made, ...more]);
  assert.equal((await rangeIds(items)).length, 8);
});

test("tokens of before are good after splits, also of a part that split twice", async () => {
  const items = await container();
  const made = await fill(items, 80, { keys: 80 });
  const [first, token] = await page(items, { ...BEGINNING, maxItemCount: 4 });
  for (const id of await rangeIds(items)) await split(items, id);
  await split(items, (await rangeIds(items))[0]);
  const more = await fill(items, 40, { keys: 80, first: 80 });
  const [rest, end] = await drain(fresh(items), resume(token, { maxItemCount: 4 }));
  same([...first, ...rest], [...made, ...more]);
  const last = await fill(items, 20, { keys: 80, first: 120 });
  same((await drain(items, resume(end)))[0], last);
});

test("tokens of feed ranges of before are good after a merge", async () => {
  const items = await container();
  const made = await fill(items, 60, { keys: 60 });
  const tokens = [];
  const seen = [];
  for (const range of await items.getFeedRanges()) {
    const [first, token] = await page(items, { ...beginningOf(range), maxItemCount: 4 });
    seen.push(...first);
    tokens.push(token);
  }
  await merge(items, ...(await rangeIds(items)).slice(1, 3));
  const more = await fill(items, 30, { keys: 60, first: 60 });
  for (const token of tokens) seen.push(...(await drain(fresh(items), resume(token, { maxItemCount: 4 })))[0]);
  // A merge may repeat items, and must lose none.
  assert.deepEqual([...new Set(ids(seen))].sort(), ids([...made, ...more]).sort());
  assert.equal((await rangeIds(items)).length, 3);
});
