"""Transactional batches: all or nothing."""

import unittest

from azure.cosmos.exceptions import CosmosBatchOperationError
from common import CosmosTest, ids


class Batches(CosmosTest):
    def failed(self, items, operations):
        with self.assertRaises(CosmosBatchOperationError) as raised:
            items.execute_item_batch(operations, "p")
        error = raised.exception
        return error.error_index, [reply["statusCode"] for reply in error.operation_responses]

    def test_success(self):
        items = self.container()
        items.create_item({"id": "old", "pk": "p", "n": 1})
        items.create_item({"id": "gone", "pk": "p"})
        replies = items.execute_item_batch(
            [
                ("create", ({"id": "new", "pk": "p"},)),
                ("upsert", ({"id": "other", "pk": "p"},)),
                ("replace", ("old", {"id": "old", "pk": "p", "n": 2})),
                ("read", ("old",)),
                ("delete", ("gone",)),
            ],
            "p",
        )
        self.assertEqual([reply["statusCode"] for reply in replies], [201, 201, 200, 200, 204])
        self.assertEqual(replies[3]["resourceBody"]["n"], 2)
        self.assertEqual(replies[0]["eTag"], items.read_item("new", "p")["_etag"])
        self.assertEqual(sorted(ids(items.read_all_items())), ["new", "old", "other"])

    def test_a_failure_leaves_nothing(self):
        items = self.container()
        items.create_item({"id": "there", "pk": "p", "n": 1})
        index, statuses = self.failed(items, [
            ("create", ({"id": "new", "pk": "p"},)),
            ("replace", ("there", {"id": "there", "pk": "p", "n": 2})),
            ("create", ({"id": "there", "pk": "p"},)),
            ("delete", ("there",)),
        ])
        self.assertEqual((index, statuses), (2, [424, 424, 409, 424]))
        self.assertEqual([(item["id"], item["n"]) for item in items.read_all_items()], [("there", 1)])
        index, statuses = self.failed(items, [("upsert", ({"id": "a", "pk": "p"},)), ("delete", ("nothing",))])
        self.assertEqual((index, statuses), (1, [424, 404]))

    def test_if_match(self):
        items = self.container()
        first = items.create_item({"id": "a", "pk": "p", "n": 1})
        items.upsert_item({"id": "a", "pk": "p", "n": 2})
        stale = {"if_match_etag": first["_etag"]}
        index, statuses = self.failed(items, [
            ("create", ({"id": "b", "pk": "p"},)),
            ("replace", ("a", {"id": "a", "pk": "p", "n": 3}), stale),
        ])
        self.assertEqual((index, statuses), (1, [424, 412]))
        fresh = {"if_match_etag": items.read_item("a", "p")["_etag"]}
        replies = items.execute_item_batch(
            [("replace", ("a", {"id": "a", "pk": "p", "n": 3}), fresh)], "p"
        )
        self.assertEqual(replies[0]["resourceBody"]["n"], 3)

    def test_patch(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "n": 1})
        more = [{"op": "incr", "path": "/n", "value": 4}, {"op": "add", "path": "/new", "value": "x"}]
        replies = items.execute_item_batch(
            [("patch", ("a", more), {"filter_predicate": "from c where c.n = 1"})], "p"
        )
        self.assertEqual(replies[0]["statusCode"], 200)
        self.assertEqual((replies[0]["resourceBody"]["n"], replies[0]["resourceBody"]["new"]), (5, "x"))
        index, statuses = self.failed(items, [
            ("create", ({"id": "b", "pk": "p"},)),
            ("patch", ("a", more), {"filter_predicate": "from c where c.n = 1"}),
        ])
        self.assertEqual((index, statuses), (1, [424, 412]))
        self.assertEqual(ids(items.read_all_items()), ["a"])

    def test_later_operations_see_earlier_ones(self):
        items = self.container()
        replies = items.execute_item_batch(
            [
                ("create", ({"id": "a", "pk": "p", "n": 1},)),
                ("read", ("a",)),
                ("replace", ("a", {"id": "a", "pk": "p", "n": 2})),
                ("delete", ("a",)),
                ("create", ({"id": "a", "pk": "p", "n": 3},)),
            ],
            "p",
        )
        self.assertEqual([reply["statusCode"] for reply in replies], [201, 200, 200, 204, 201])
        self.assertEqual(items.read_item("a", "p")["n"], 3)

    def test_more_than_100_operations_are_400(self):
        items = self.container()
        many = [("create", ({"id": str(n), "pk": "p"},)) for n in range(101)]
        with self.refused(400):
            items.execute_item_batch(many, "p")
        self.assertEqual(len(items.execute_item_batch(many[:100], "p")), 100)


if __name__ == "__main__":
    unittest.main(verbosity=2)
