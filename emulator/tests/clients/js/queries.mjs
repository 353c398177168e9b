// Queries within a partition and across partitions, planned by the server and merged by the SDK.

import { assert, container, fresh, ids, refused, test, upTo } from "./common.mjs";

const COLOURS = ["red", "green", "blue"];
const ITEMS = upTo(60).map((n) => ({
  id: `i${String(n).padStart(2, "0")}`,
  pk: `p${n % 7}`,
  n,
  half: n / 2,
  colour: COLOURS[n % 3],
  nested: { list: [n, n + 1] },
}));
const OF_P1 = ITEMS.filter((item) => item.pk === "p1");
const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);
const ascending = (a, b) => a - b;
const items = await container();
for (const item of ITEMS) await items.items.create(item);

function spec(query, parameters) {
  return { query, parameters: Object.entries(parameters).map(([name, value]) => ({ name: `@${name}`, value })) };
}

const across = async (query, parameters = {}, options = {}) =>
  (await items.items.query(spec(query, parameters), options).fetchAll()).resources;
const within = (query, parameters = {}, options = {}) =>
  across(query, parameters, { partitionKey: "p1", ...options });

test("parameters and where", async () => {
  const rows = await across("SELECT * FROM c WHERE c.n >= @low AND c.n < @high AND c.colour = @colour", {
    low: 10,
    high: 30,
    colour: "green",
  });
  assert.deepEqual(rows.map((row) => row.n).sort(ascending), [10, 13, 16, 19, 22, 25, 28]);
  assert.deepEqual((await within("SELECT VALUE c.n FROM c WHERE c.n > @low", { low: 30 })).sort(ascending), [36, 43, 50, 57]);
});

test("projection", async () => {
  const rows = await across("SELECT c.id, c.nested.list[1] AS second, c.missing FROM c WHERE c.n = 8");
  assert.deepEqual(rows, [{ id: "i08", second: 9 }]);
});

test("order by across partitions", async () => {
  assert.deepEqual(await across("SELECT VALUE c.n FROM c ORDER BY c.n"), upTo(60));
  const rows = await across("SELECT c.id, c.n FROM c ORDER BY c.n DESC", {}, { maxItemCount: 7 });
  assert.deepEqual(rows.map((row) => row.n), upTo(60).reverse());
});

test("aggregates across partitions", async () => {
  const expected = [["COUNT(1)", 60], ["SUM(c.n)", 1770], ["AVG(c.n)", 29.5], ["MIN(c.n)", 0], ["MAX(c.half)", 29.5]];
  for (const [text, value] of expected)
    assert.deepEqual(await across(`SELECT VALUE ${text} FROM c`), [value], text);
  assert.deepEqual(await across("SELECT VALUE COUNT(1) FROM c WHERE c.colour = 'red'"), [20]);
  assert.deepEqual(await across("SELECT VALUE COUNT(1) FROM c WHERE c.n > 1000"), [0]);
});

test("several aggregates across partitions", async () => {
  assert.deepEqual(await across("SELECT COUNT(1) AS many, SUM(c.n) AS total, MAX(c.n) AS most FROM c"), [
    { many: 60, total: 1770, most: 59 },
  ]);
});

test("aggregates within a partition", async () => {
  const numbers = OF_P1.map((item) => item.n);
  assert.deepEqual(
    await within("SELECT COUNT(1) AS many, SUM(c.n) AS total, AVG(c.n) AS mean, MIN(c.n) AS least, MAX(c.n) AS most FROM c"),
    [{
      many: numbers.length,
      total: sum(numbers),
      mean: sum(numbers) / numbers.length,
      least: Math.min(...numbers),
      most: Math.max(...numbers),
    }],
  );
});

test("distinct", async () => {
  assert.deepEqual((await across("SELECT DISTINCT VALUE c.colour FROM c")).sort(), [...COLOURS].sort());
  assert.deepEqual(await across("SELECT DISTINCT VALUE c.pk FROM c ORDER BY c.pk"), upTo(7).map((n) => `p${n}`));
});

function groups(of) {
  const result = new Map();
  for (const { colour, n } of of) {
    const [many, total] = result.get(colour) ?? [0, 0];
    result.set(colour, [many + 1, total + n]);
  }
  return result;
}

for (const [name, run, of] of [["across partitions", across, ITEMS], ["within a partition", within, OF_P1]])
  test(`group by ${name}`, async () => {
    const rows = await run("SELECT c.colour, COUNT(1) AS many, SUM(c.n) AS total FROM c GROUP BY c.colour");
    const found = rows.map(({ colour, many, total }) => [colour, [many, total]]);
    assert.equal(found.length, 3);
    assert.deepEqual(new Map(found), groups(of));
  });

test("offset, limit and top", async () => {
  assert.deepEqual(await across("SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 5 LIMIT 4"), [5, 6, 7, 8]);
  assert.deepEqual(await across("SELECT TOP 3 VALUE c.n FROM c ORDER BY c.n DESC"), [59, 58, 57]);
  assert.equal((await across("SELECT TOP 10 * FROM c")).length, 10);
  assert.deepEqual(await within("SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 2 LIMIT 2"), [15, 22]);
});

test("pages and resuming by token within a partition", async () => {
  const query = "SELECT VALUE c.n FROM c WHERE c.n >= 0";
  const options = { partitionKey: "p1", maxItemCount: 4 };
  const pages = [];
  let continuationToken;
  do {
    // A new iterator for each page: only the token carries the place.
    const page = await items.items.query(query, { ...options, continuationToken }).fetchNext();
    pages.push(page.resources);
    continuationToken = page.continuationToken;
  } while (continuationToken);
  assert.deepEqual(pages.filter((page) => page.length > 0).map((page) => page.length), [4, 4, 1]);
  assert.deepEqual(pages.flat().sort(ascending), OF_P1.map((item) => item.n));
});

for (const [name, query] of [
  ["a plain query", "SELECT VALUE c.n FROM c"],
  ["an ordered query", "SELECT * FROM c ORDER BY c.n"],
])
  test(`pages and resuming by token across partitions, ${name}`, async () => {
    const seen = [];
    let continuationToken;
    let requests = 0;
    do {
      const other = fresh(items);
      const options = { maxItemCount: 9, continuationToken, enableQueryControl: true };
      const page = await other.items.query(query, options).fetchNext();
      assert.ok((page.resources?.length ?? 0) <= 9);
      seen.push(...(page.resources ?? []).map((row) => row.n ?? row));
      continuationToken = page.continuationToken;
      assert.ok(++requests < 40, "the query does not end");
    } while (continuationToken);
    if (query.includes("ORDER")) assert.deepEqual(seen, upTo(60));
    else assert.deepEqual(seen.sort(ascending), upTo(60));
  });

test("pages across partitions", async () => {
  const seen = [];
  for await (const page of items.items.query("SELECT * FROM c", { maxItemCount: 9 }).getAsyncIterator()) {
    assert.ok(page.resources.length <= 9);
    seen.push(...ids(page.resources));
  }
  assert.deepEqual(seen.sort(), ids(ITEMS));
});

test("a malformed query is 400", async () => {
  await refused(across("SELECT * FROM c WHERE c.n >"), 400);
});
