"""The change feed in AllVersionsAndDeletes mode: every version, every delete, every expiry."""

import unittest

from common import CosmosTest, advance_clock, range_of, strip

MODE = "AllVersionsAndDeletes"


def gist(envelope):
    """Operation and id of an envelope."""
    metadata = envelope["metadata"]
    current = envelope.get("current") or {}
    return metadata["operationType"], current.get("id") or metadata["id"]


class AllVersions(CosmosTest):
    def read(self, items, **options):
        """Everything the feed has, and the token to go on with."""
        changes = list(items.query_items_change_feed(**options))
        return changes, items.client_connection.last_response_headers["etag"]

    def now(self, items, **options):
        """The token of the present."""
        changes, token = self.read(items, mode=MODE, start_time="Now", **options)
        self.assertEqual(changes, [])
        return token

    def check(self, envelope, operation, current, previous):
        """Checks one envelope and returns its LSN."""
        metadata = envelope["metadata"]
        self.assertEqual(metadata["operationType"], operation, envelope)
        self.assertIsInstance(metadata["lsn"], int)
        self.assertIsInstance(metadata["crts"], int)
        # A missing side is absent, null or an empty object.
        self.assertEqual(strip(envelope.get("current") or {}), current or {})
        self.assertEqual(strip(envelope.get("previous") or {}), previous or {})
        if operation == "create":
            self.assertFalse(metadata.get("previousImageLSN"))
        else:
            self.assertLess(metadata["previousImageLSN"], metadata["lsn"])
        return metadata["lsn"]

    def test_create_replace_and_delete(self):
        items = self.container()
        items.create_item({"id": "before", "pk": "p"})
        token = self.now(items)
        one, two, three = ({"id": "a", "pk": "p", "n": n} for n in (1, 2, 3))
        stamps = [items.create_item(one), items.replace_item("a", two), items.upsert_item(three)]
        items.delete_item("a", "p")

        changes, token = self.read(items, continuation=token)
        self.assertEqual(len(changes), 4, changes)
        lsns = [
            self.check(changes[0], "create", one, None),
            self.check(changes[1], "replace", two, one),
            self.check(changes[2], "replace", three, two),
            self.check(changes[3], "delete", None, three),
        ]
        self.assertEqual(lsns, sorted(set(lsns)))
        self.assertEqual([c["metadata"]["previousImageLSN"] for c in changes[1:]], lsns[:3])
        self.assertEqual(
            [c["current"]["_etag"] for c in changes[:3]], [stamp["_etag"] for stamp in stamps]
        )
        self.assertEqual(
            [c["metadata"]["crts"] for c in changes[:3]], [stamp["_ts"] for stamp in stamps]
        )
        deleted = changes[3]["metadata"]
        self.assertEqual((deleted["id"], deleted["partitionKey"]), ("a", {"pk": "p"}))
        self.assertFalse(deleted.get("timeToLiveExpired"))
        self.assertEqual(self.read(items, continuation=token)[0], [])

    def test_expiry(self):
        items = self.container(default_ttl=-1)
        token = self.now(items)
        kept, brief = {"id": "kept", "pk": "p"}, {"id": "brief", "pk": "p", "ttl": 2}
        items.create_item(kept)
        items.create_item(brief)
        advance_clock(5_000)
        with self.refused(404):
            items.read_item("brief", "p")
        changes, _ = self.read(items, continuation=token)
        self.assertEqual(
            [gist(change) for change in changes],
            [("create", "kept"), ("create", "brief"), ("delete", "brief")],
        )
        self.check(changes[2], "delete", None, brief)
        deleted = changes[2]["metadata"]
        self.assertIs(deleted["timeToLiveExpired"], True)
        self.assertEqual((deleted["id"], deleted["partitionKey"]), ("brief", {"pk": "p"}))

    def test_hierarchical_key_of_a_delete(self):
        items = self.container("/tenant", "/user")
        token = self.now(items)
        items.create_item({"id": "a", "tenant": "t", "user": 7})
        items.delete_item("a", ["t", 7])
        changes, _ = self.read(items, continuation=token)
        self.assertEqual([gist(change) for change in changes], [("create", "a"), ("delete", "a")])
        self.assertEqual(changes[1]["metadata"]["partitionKey"], {"tenant": "t", "user": 7})

    def test_an_id_that_comes_back(self):
        items = self.container()
        token = self.now(items)
        for n in (1, 2):
            items.create_item({"id": "a", "pk": "p", "n": n})
            items.delete_item("a", "p")
        changes, _ = self.read(items, continuation=token)
        self.assertEqual([gist(change)[0] for change in changes], ["create", "delete"] * 2)
        self.assertEqual([change["previous"]["n"] for change in changes[1::2]], [1, 2])

    def test_a_batch_is_every_version_under_one_lsn(self):
        items = self.container()
        token = self.now(items)
        items.execute_item_batch(
            [
                ("create", ({"id": "a", "pk": "p", "n": 1},)),
                ("replace", ("a", {"id": "a", "pk": "p", "n": 2})),
                ("create", ({"id": "b", "pk": "p"},)),
                ("delete", ("a",)),
            ],
            "p",
        )
        changes, _ = self.read(items, continuation=token, max_item_count=1)
        self.assertEqual(
            [gist(change) for change in changes],
            [("create", "a"), ("replace", "a"), ("create", "b"), ("delete", "a")],
        )
        self.assertEqual(len({change["metadata"]["lsn"] for change in changes}), 1)

    def test_resume_per_feed_range(self):
        items = self.container()
        tokens = [self.now(items, feed_range=feed_range) for feed_range in items.read_feed_ranges()]
        self.assertEqual(len(tokens), 4)
        expected = []
        for round in range(3):
            for n in range(20):
                body = {"id": f"i{n}", "pk": f"p{n}", "round": round}
                items.upsert_item(body)
                expected.append(("create" if round == 0 else "replace", f"i{n}", round))
            seen = []
            for index, token in enumerate(tokens):
                # One page, and the rest from its token: a token in the middle is worth as much as one at the end.
                pages = items.query_items_change_feed(continuation=token, max_item_count=2).by_page()
                seen += list(next(pages, []))
                middle = items.client_connection.last_response_headers["etag"]
                rest, tokens[index] = self.read(items, continuation=middle, max_item_count=2)
                seen += rest
            seen = [(*gist(change), change["current"]["round"]) for change in seen]
            self.assertEqual(sorted(seen), sorted(expected))
            expected.clear()

    def test_per_partition_key(self):
        items = self.container()
        token = self.now(items, partition_key="p1")
        for n in range(6):
            items.create_item({"id": f"i{n}", "pk": f"p{n % 3}"})
        items.delete_item("i1", "p1")
        items.delete_item("i2", "p2")
        changes, _ = self.read(items, continuation=token, partition_key="p1")
        self.assertEqual(
            [gist(change) for change in changes], [("create", "i1"), ("create", "i4"), ("delete", "i1")]
        )

    def test_resume_across_a_split(self):
        items = self.container()
        token = self.now(items)
        expected, ranges = [], set()

        def write(first, last):
            for n in range(first, last):
                ranges.add(range_of(items.create_item({"id": f"i{n}", "pk": f"p{n}"})))
                items.upsert_item({"id": f"i{n}", "pk": f"p{n}", "again": True})
                expected.extend([("create", f"i{n}"), ("replace", f"i{n}")])
                if n % 3 == 0:
                    items.delete_item(f"i{n}", f"p{n}")
                    expected.append(("delete", f"i{n}"))

        write(0, 20)
        for range_id in sorted(ranges):
            self.split(items, range_id)
        write(20, 40)
        changes, token = self.read(items, continuation=token, max_item_count=5)
        self.assertEqual(sorted(gist(change) for change in changes), sorted(expected))
        for n in range(40):
            of_item = [gist(change)[0] for change in changes if gist(change)[1] == f"i{n}"]
            self.assertEqual(of_item, ["create", "replace", "delete"][: 3 if n % 3 == 0 else 2])
        expected.clear()
        write(40, 50)
        changes, _ = self.read(items, continuation=token)
        self.assertEqual(sorted(gist(change) for change in changes), sorted(expected))


if __name__ == "__main__":
    unittest.main(verbosity=2)
