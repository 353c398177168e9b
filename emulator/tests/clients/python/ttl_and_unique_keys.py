"""Expiry of items, and unique keys."""

import unittest

from common import CosmosTest, advance_clock, ids


class TimeToLive(CosmosTest):
    def left(self, items):
        return sorted(ids(items.query_items("SELECT * FROM c", enable_cross_partition_query=True)))

    def test_default_of_the_container(self):
        items = self.container(default_ttl=10)
        self.assertEqual(items.read()["defaultTtl"], 10)
        items.create_item({"id": "default", "pk": "p"})
        items.create_item({"id": "brief", "pk": "p", "ttl": 3})
        items.create_item({"id": "long", "pk": "p", "ttl": 100})
        items.create_item({"id": "forever", "pk": "p", "ttl": -1})
        advance_clock(5_000)
        self.assertEqual(self.left(items), ["default", "forever", "long"])
        with self.refused(404):
            items.read_item("brief", "p")
        with self.refused(404):
            items.replace_item("brief", {"id": "brief", "pk": "p"})
        advance_clock(10_000)
        self.assertEqual(self.left(items), ["forever", "long"])
        self.assertEqual(
            sorted(ids(items.query_items_change_feed(start_time="Beginning"))), ["forever", "long"]
        )
        advance_clock(100_000)
        self.assertEqual(self.left(items), ["forever"])

    def test_a_write_starts_the_time_again(self):
        items = self.container(default_ttl=10)
        items.create_item({"id": "a", "pk": "p"})
        advance_clock(7_000)
        items.upsert_item({"id": "a", "pk": "p", "n": 2})
        advance_clock(7_000)
        self.assertEqual(items.read_item("a", "p")["n"], 2)
        advance_clock(7_000)
        with self.refused(404):
            items.read_item("a", "p")

    def test_an_expired_id_is_free_again(self):
        items = self.container(default_ttl=-1)
        items.create_item({"id": "a", "pk": "p", "ttl": 2, "n": 1})
        advance_clock(5_000)
        self.assertEqual(items.create_item({"id": "a", "pk": "p", "n": 2})["n"], 2)

    def test_ttl_of_items_does_nothing_without_one_of_the_container(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "ttl": 2})
        advance_clock(5_000)
        self.assertEqual(items.read_item("a", "p")["ttl"], 2)

    def test_a_bad_ttl_is_400(self):
        items = self.container(default_ttl=-1)
        for ttl in (0, -2, "soon"):
            with self.subTest(ttl), self.refused(400):
                items.create_item({"id": "a", "pk": "p", "ttl": ttl})


class UniqueKeys(CosmosTest):
    POLICY = {"uniqueKeys": [{"paths": ["/email"]}, {"paths": ["/name/first", "/name/last"]}]}

    def person(self, id, email, first, last, pk="p"):
        return {"id": id, "pk": pk, "email": email, "name": {"first": first, "last": last}}

    def test_a_second_one_is_409(self):
        people = self.container(unique_key_policy=self.POLICY)
        self.assertEqual(len(people.read()["uniqueKeyPolicy"]["uniqueKeys"]), 2)
        people.create_item(self.person("1", "a@x", "Ada", "L"))
        with self.refused(409):
            people.create_item(self.person("2", "a@x", "Bob", "M"))
        with self.refused(409):
            people.create_item(self.person("2", "b@x", "Ada", "L"))
        with self.refused(409):
            people.upsert_item(self.person("2", "a@x", "Bob", "M"))
        people.create_item(self.person("2", "b@x", "Ada", "M"))
        with self.refused(409):
            people.replace_item("2", self.person("2", "a@x", "Ada", "M"))
        self.assertEqual(people.read_item("2", "p")["email"], "b@x")
        # The same values are free under another partition key.
        people.create_item(self.person("1", "a@x", "Ada", "L", pk="q"))

    def test_a_deleted_or_changed_value_is_free_again(self):
        people = self.container(unique_key_policy=self.POLICY)
        people.create_item(self.person("1", "a@x", "Ada", "L"))
        people.replace_item("1", self.person("1", "b@x", "Ada", "L"))
        people.create_item(self.person("2", "a@x", "Bob", "M"))
        people.delete_item("2", "p")
        people.create_item(self.person("3", "a@x", "Bob", "M"))

    def test_in_a_batch(self):
        from azure.cosmos.exceptions import CosmosBatchOperationError

        people = self.container(unique_key_policy=self.POLICY)
        with self.assertRaises(CosmosBatchOperationError) as raised:
            people.execute_item_batch(
                [
                    ("create", (self.person("1", "a@x", "Ada", "L"),)),
                    ("create", (self.person("2", "a@x", "Bob", "M"),)),
                ],
                "p",
            )
        statuses = [reply["statusCode"] for reply in raised.exception.operation_responses]
        self.assertEqual(statuses, [424, 409])
        self.assertEqual(list(people.read_all_items()), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
