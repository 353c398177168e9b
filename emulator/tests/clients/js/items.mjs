// Point operations: every status, entity tags, hierarchical keys, sizes, session tokens.

import { CosmosClient } from "@azure/cosmos";
import { assert, client, container, endpoint, fresh, ids, refused, strip, test, theDatabase, upTo } from "./common.mjs";

test("create, read, replace, upsert, delete", async () => {
  const items = await container();
  const body = { id: "a", pk: "p", n: 1, text: "grüße 🌊" };
  const created = await items.items.create(body);
  assert.equal(created.statusCode, 201);
  assert.deepEqual(strip(created.resource), body);
  for (const name of ["_rid", "_self", "_etag", "_ts", "_attachments"]) assert.ok(name in created.resource, name);
  assert.equal(created.etag, created.resource._etag);
  assert.ok(created.requestCharge > 0);

  const item = items.item("a", "p");
  const read = await item.read();
  assert.equal(read.statusCode, 200);
  assert.deepEqual(read.resource, created.resource);

  const replaced = await item.replace({ id: "a", pk: "p", n: 2 });
  assert.equal(replaced.statusCode, 200);
  assert.deepEqual(strip(replaced.resource), { id: "a", pk: "p", n: 2 });
  assert.equal(replaced.resource._rid, created.resource._rid);
  assert.notEqual(replaced.etag, created.etag);

  assert.equal((await items.items.upsert({ id: "a", pk: "p", n: 3 })).statusCode, 200);
  assert.equal((await items.items.upsert({ id: "b", pk: "p", n: 4 })).statusCode, 201);
  assert.deepEqual(ids((await items.items.readAll().fetchAll()).resources).sort(), ["a", "b"]);
  assert.equal((await item.delete()).statusCode, 204);
  assert.equal((await item.read()).statusCode, 404);
});

test("missing items, containers and databases are 404", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p" });
  const missing = await items.item("a", "another key").read();
  assert.equal(missing.statusCode, 404);
  assert.equal(missing.resource, undefined);
  await refused(items.item("nothing", "p").replace({ id: "nothing", pk: "p" }), 404);
  await refused(items.item("nothing", "p").delete(), 404);
  await refused(theDatabase().container("nothing").read(), 404);
  await refused(client.database("nothing").read(), 404);
});

test("duplicates are 409", async () => {
  const items = await container();
  await items.items.create({ id: "a", pk: "p" });
  await refused(items.items.create({ id: "a", pk: "p" }), 409);
  await items.items.create({ id: "a", pk: "another key" });
  await refused(theDatabase().containers.create({ id: items.id, partitionKey: "/pk" }), 409);
});

test("bad items are 400", async () => {
  const items = await container();
  await refused(items.items.create({ pk: "p" }, { disableAutomaticIdGeneration: true }), 400);
  await refused(items.items.create({ id: "x".repeat(1024), pk: "p" }), 400);
  await items.items.create({ id: "x".repeat(1023), pk: "p" });
  await items.items.create({ id: "a", pk: "p" });
  await refused(items.item("a", "p").replace({ id: "a", pk: "another key" }), 400);
});

test("items of more than 2 MB are 413", async () => {
  const items = await container();
  await refused(items.items.create({ id: "a", pk: "p", text: "x".repeat(2 * 1024 * 1024) }), 413);
  const text = "x".repeat(2 * 1024 * 1024 - 1024);
  await items.items.create({ id: "a", pk: "p", text });
  assert.equal((await items.item("a", "p").read()).resource.text, text);
});

test("if-match", async () => {
  const items = await container();
  const first = await items.items.create({ id: "a", pk: "p", n: 1 });
  const when = (etag) => ({ accessCondition: { type: "IfMatch", condition: etag } });
  const item = items.item("a", "p");
  const second = await item.replace({ id: "a", pk: "p", n: 2 }, when(first.etag));
  await refused(item.replace({ id: "a", pk: "p", n: 3 }, when(first.etag)), 412);
  await refused(items.items.upsert({ id: "a", pk: "p", n: 3 }, when(first.etag)), 412);
  await refused(item.delete(when(first.etag)), 412);
  assert.equal((await item.read()).resource.n, 2);
  assert.equal((await item.delete(when(second.etag))).statusCode, 204);
});

test("if-none-match on a read is 304", async () => {
  const items = await container();
  const { etag } = await items.items.create({ id: "a", pk: "p", n: 1 });
  const known = { accessCondition: { type: "IfNoneMatch", condition: etag } };
  const item = items.item("a", "p");
  assert.equal((await item.read(known)).statusCode, 304);
  await items.items.upsert({ id: "a", pk: "p", n: 2 });
  const changed = await item.read(known);
  assert.deepEqual([changed.statusCode, changed.resource.n], [200, 2]);
});

test("hierarchical partition keys", async () => {
  const items = await container({}, ["/tenant", "/user", "/session"]);
  for (const tenant of ["t1", "t2"])
    for (const user of ["u1", "u2"])
      for (const session of [1, 2])
        await items.items.create({ id: `${tenant}${user}${session}`, tenant, user, session });
  assert.equal((await items.item("t1u21", ["t1", "u2", 1]).read()).resource.user, "u2");
  assert.equal((await items.item("t1u21", ["t1", "u2", 2]).read()).statusCode, 404);
  const of = async (partitionKey) =>
    ids((await items.items.query("SELECT * FROM c", { partitionKey }).fetchAll()).resources).sort();
  assert.deepEqual(await of(["t1", "u2", 1]), ["t1u21"]);
  assert.deepEqual(await of(["t1", "u2"]), ["t1u21", "t1u22"]);
  assert.deepEqual(await of(["t2"]), ["t2u11", "t2u12", "t2u21", "t2u22"]);
  await items.item("t1u21", ["t1", "u2", 1]).delete();
  assert.deepEqual(await of(["t1", "u2"]), ["t1u22"]);
});

test("keys of every type", async () => {
  const items = await container();
  const keys = ["text", "", 7, -0.5, true, false, null];
  for (const [index, pk] of keys.entries()) await items.items.create({ id: `${index}`, pk });
  for (const [index, pk] of keys.entries())
    assert.equal((await items.item(`${index}`, pk).read()).resource?.pk, pk, `key ${pk}`);
  await items.items.create({ id: "none" });
  const { resources } = await items.items.query("SELECT * FROM c WHERE NOT IS_DEFINED(c.pk)").fetchAll();
  assert.deepEqual(ids(resources), ["none"]);
});

test("session tokens", async () => {
  const made = await container();
  const items = fresh(made, { consistencyLevel: "Session" });
  const lsn = (token) => Number(token.includes("#") ? token.split("#")[1] : token.split(":")[1]);
  const first = (await items.items.create({ id: "a", pk: "p", n: 1 })).headers["x-ms-session-token"];
  const second = (await items.items.upsert({ id: "a", pk: "p", n: 2 })).headers["x-ms-session-token"];
  assert.equal(first.split(":")[0], second.split(":")[0]);
  assert.ok(lsn(second) > lsn(first));
  const read = await items.item("a", "p").read();
  assert.equal(lsn(read.headers["x-ms-session-token"]), lsn(second));
  const again = await items.item("a", "p").read({ sessionToken: first });
  assert.equal(again.resource.n, 2);
});

test("a wrong key is 401", async () => {
  const other = new CosmosClient({ endpoint, key: Buffer.from("another key").toString("base64") });
  await refused(other.database("nothing").read(), 401);
  other.dispose();
});

test("many items at once", async () => {
  const items = await container();
  const made = await Promise.all(upTo(200).map((n) => items.items.create({ id: `i${n}`, pk: `p${n}` })));
  assert.ok(made.every((reply) => reply.statusCode === 201));
  assert.equal((await items.items.readAll({ maxItemCount: 30 }).fetchAll()).resources.length, 200);
});
