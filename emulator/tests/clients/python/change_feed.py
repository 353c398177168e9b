"""The change feed in LatestVersion mode.

The SDK cannot resume a whole-container feed that stopped in the middle of a page run (its own token then lacks parts),
so resuming is checked per feed range, and per container only where the feed was drained.
"""

import unittest
from datetime import datetime, timedelta, timezone

from common import CosmosTest, advance_clock, ids, range_of


class ChangeFeed(CosmosTest):
    def read(self, items, **options):
        """Everything the feed has, and the token to go on with."""
        changes = list(items.query_items_change_feed(**options))
        return changes, items.client_connection.last_response_headers["etag"]

    def page(self, items, **options):
        """One page, and the token to go on with."""
        pages = items.query_items_change_feed(**options).by_page()
        return list(next(pages)), items.client_connection.last_response_headers["etag"]

    def fill(self, items, count, keys=10, start=0):
        made = [
            items.create_item({"id": f"i{n:03}", "pk": f"p{n % keys}", "n": n})
            for n in range(start, start + count)
        ]
        return {item["id"]: item for item in made}

    def test_from_the_beginning(self):
        items = self.container()
        made = self.fill(items, 40)
        changes, _ = self.read(items, start_time="Beginning", max_item_count=7)
        self.assertEqual(sorted(ids(changes)), sorted(made))
        self.assertTrue(all(isinstance(change["_lsn"], int) for change in changes))
        for key in {change["pk"] for change in changes}:
            order = [change["n"] for change in changes if change["pk"] == key]
            self.assertEqual(order, sorted(order), f"key {key} is out of order")

    def test_only_the_newest_version_and_no_deletes(self):
        items = self.container()
        self.fill(items, 6, keys=1)
        items.upsert_item({"id": "i001", "pk": "p0", "n": 100})
        items.upsert_item({"id": "i001", "pk": "p0", "n": 101})
        items.delete_item("i002", "p0")
        changes, _ = self.read(items, start_time="Beginning")
        self.assertEqual([change["n"] for change in changes], [0, 3, 4, 5, 101])

    def test_resume_of_a_drained_container(self):
        items = self.container()
        self.fill(items, 20)
        changes, token = self.read(items, start_time="Beginning")
        self.assertEqual(len(changes), 20)
        changes, token = self.read(items, continuation=token)
        self.assertEqual(changes, [])
        made = self.fill(items, 5, start=20)
        changes, token = self.read(items, continuation=token)
        self.assertEqual(sorted(ids(changes)), sorted(made))

    def test_from_now(self):
        items = self.container()
        self.fill(items, 10)
        changes, token = self.read(items, start_time="Now")
        self.assertEqual(changes, [])
        made = self.fill(items, 5, start=10)
        changes, _ = self.read(items, continuation=token)
        self.assertEqual(sorted(ids(changes)), sorted(made))

    def test_from_a_start_time(self):
        items = self.container()
        self.fill(items, 10)
        advance_clock(10_000)
        later = self.fill(items, 10, start=10)
        start = datetime.fromtimestamp(min(item["_ts"] for item in later.values()), timezone.utc)
        # The SDK cannot read its own token of a start time again (it takes the milliseconds in it for seconds).
        changes, _ = self.read(items, start_time=start, max_item_count=3)
        self.assertEqual(sorted(ids(changes)), sorted(later))
        everything, _ = self.read(items, start_time=start - timedelta(hours=1))
        self.assertEqual(len(everything), 20)

    def test_per_feed_range(self):
        items = self.container()
        made = self.fill(items, 40, keys=40)
        ranges = list(items.read_feed_ranges())
        self.assertEqual(len(ranges), 4)
        seen, tokens = [], []
        for feed_range in ranges:
            page, token = self.page(items, start_time="Beginning", feed_range=feed_range, max_item_count=4)
            self.assertLessEqual(len(page), 4)
            seen += ids(page)
            rest, token = self.read(items, continuation=token, max_item_count=4)
            seen += ids(rest)
            tokens.append(token)
        self.assertEqual(sorted(seen), sorted(made))
        made = self.fill(items, 10, keys=40, start=40)
        seen = [id for token in tokens for id in ids(self.read(items, continuation=token)[0])]
        self.assertEqual(sorted(seen), sorted(made))

    def test_per_partition_key(self):
        items = self.container()
        self.fill(items, 30)
        changes, token = self.read(items, start_time="Beginning", partition_key="p3")
        self.assertEqual(ids(changes), ["i003", "i013", "i023"])
        self.fill(items, 10, start=30)
        changes, _ = self.read(items, continuation=token, partition_key="p3")
        self.assertEqual(ids(changes), ["i033"])

    def test_per_prefix_of_a_hierarchical_key(self):
        items = self.container("/tenant", "/user")
        for n in range(20):
            items.create_item({"id": f"i{n:03}", "tenant": f"t{n % 2}", "user": f"u{n % 5}"})
        changes, _ = self.read(items, start_time="Beginning", partition_key=["t1"])
        self.assertEqual(sorted(ids(changes)), [f"i{n:03}" for n in range(1, 20, 2)])
        changes, _ = self.read(items, start_time="Beginning", partition_key=["t1", "u1"])
        self.assertEqual(sorted(ids(changes)), ["i001", "i011"])

    def test_resume_across_splits(self):
        items = self.container()
        made = self.fill(items, 60, keys=60)
        tokens, seen = [], []
        for feed_range in items.read_feed_ranges():
            page, token = self.page(items, start_time="Beginning", feed_range=feed_range, max_item_count=4)
            seen += ids(page)
            tokens.append(token)
        for range_id in {range_of(item) for item in made.values()}:
            self.split(items, range_id)
        more = self.fill(items, 30, keys=60, start=60)
        for index, token in enumerate(tokens):
            rest, tokens[index] = self.read(items, continuation=token, max_item_count=4)
            seen += ids(rest)
        self.assertEqual(sorted(seen), sorted({**made, **more}))
        made = self.fill(items, 20, keys=60, start=90)
        seen = [id for token in tokens for id in ids(self.read(items, continuation=token)[0])]
        self.assertEqual(sorted(seen), sorted(made))
        self.assertEqual(len(list(items.read_feed_ranges(force_refresh=True))), 8)

    def test_resume_of_a_drained_container_across_a_split(self):
        items = self.container()
        made = self.fill(items, 40, keys=40)
        _, token = self.read(items, start_time="Beginning")
        self.split(items, range_of(made["i000"]))
        items.upsert_item({"id": "i000", "pk": "p0", "n": 1000})
        more = self.fill(items, 20, keys=40, start=40)
        changes, _ = self.read(items, continuation=token)
        self.assertEqual(sorted(ids(changes)), sorted([*more, "i000"]))

    def test_resume_across_a_merge(self):
        items = self.container()
        made = self.fill(items, 60, keys=60)
        tokens, seen = [], []
        for feed_range in items.read_feed_ranges():
            page, token = self.page(items, start_time="Beginning", feed_range=feed_range, max_item_count=4)
            seen += ids(page)
            tokens.append(token)
        first, second = sorted({range_of(item) for item in made.values()}, key=int)[:2]
        self.merge(items, first, second)
        more = self.fill(items, 30, keys=60, start=60)
        for token in tokens:
            seen += ids(self.read(items, continuation=token, max_item_count=4)[0])
        # A merge may repeat items, and must lose none.
        self.assertEqual(sorted(set(seen)), sorted({**made, **more}))
        self.assertEqual(len(list(items.read_feed_ranges(force_refresh=True))), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
