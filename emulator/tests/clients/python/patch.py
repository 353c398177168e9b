"""Partial updates."""

import unittest

from azure.core import MatchConditions
from common import CosmosTest, strip


class Patches(CosmosTest):
    def patched(self, before, *operations, **options):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", **before})
        reply = items.patch_item("a", "p", list(operations), **options)
        self.assertEqual(dict(reply), items.read_item("a", "p"))
        after = strip(reply)
        self.assertEqual((after.pop("id"), after.pop("pk")), ("a", "p"))
        return after

    def test_add(self):
        self.assertEqual(self.patched({}, {"op": "add", "path": "/n", "value": 1}), {"n": 1})
        self.assertEqual(self.patched({"n": 1}, {"op": "add", "path": "/n", "value": 2}), {"n": 2})
        self.assertEqual(
            self.patched({"l": [1, 3]}, {"op": "add", "path": "/l/1", "value": 2}), {"l": [1, 2, 3]}
        )
        self.assertEqual(
            self.patched({"l": [1, 2]}, {"op": "add", "path": "/l/-", "value": 3}), {"l": [1, 2, 3]}
        )

    def test_set(self):
        self.assertEqual(self.patched({}, {"op": "set", "path": "/n", "value": {"x": 1}}), {"n": {"x": 1}})
        self.assertEqual(
            self.patched({"l": [1, 2]}, {"op": "set", "path": "/l/1", "value": 9}), {"l": [1, 9]}
        )

    def test_replace(self):
        self.assertEqual(
            self.patched({"o": {"n": 1}}, {"op": "replace", "path": "/o/n", "value": 2}), {"o": {"n": 2}}
        )
        with self.refused(400):
            self.patched({}, {"op": "replace", "path": "/n", "value": 2})

    def test_remove(self):
        self.assertEqual(self.patched({"n": 1, "m": 2}, {"op": "remove", "path": "/n"}), {"m": 2})
        self.assertEqual(self.patched({"l": [1, 2, 3]}, {"op": "remove", "path": "/l/0"}), {"l": [2, 3]})
        with self.refused(400):
            self.patched({}, {"op": "remove", "path": "/n"})

    def test_incr(self):
        self.assertEqual(self.patched({"n": 1}, {"op": "incr", "path": "/n", "value": 41}), {"n": 42})
        self.assertEqual(self.patched({"n": 1}, {"op": "incr", "path": "/n", "value": -1.5}), {"n": -0.5})
        self.assertEqual(self.patched({}, {"op": "incr", "path": "/n", "value": 3}), {"n": 3})
        with self.refused(400):
            self.patched({"n": "text"}, {"op": "incr", "path": "/n", "value": 1})

    def test_move(self):
        self.assertEqual(
            self.patched({"from": {"n": 1}, "to": {}}, {"op": "move", "from": "/from/n", "path": "/to/n"}),
            {"from": {}, "to": {"n": 1}},
        )

    def test_several_operations_are_all_or_nothing(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "n": 1})
        reply = items.patch_item("a", "p", [
            {"op": "incr", "path": "/n", "value": 1},
            {"op": "set", "path": "/m", "value": "x"},
            {"op": "remove", "path": "/m"},
        ])
        self.assertEqual(strip(reply), {"id": "a", "pk": "p", "n": 2})
        with self.refused(400):
            items.patch_item("a", "p", [
                {"op": "incr", "path": "/n", "value": 1},
                {"op": "remove", "path": "/missing"},
            ])
        self.assertEqual(items.read_item("a", "p"), dict(reply))

    def test_filter_predicate(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "n": 1})
        more = [{"op": "incr", "path": "/n", "value": 1}]
        self.assertEqual(items.patch_item("a", "p", more, filter_predicate="from c where c.n = 1")["n"], 2)
        with self.refused(412):
            items.patch_item("a", "p", more, filter_predicate="from c where c.n = 1")
        self.assertEqual(items.read_item("a", "p")["n"], 2)

    def test_if_match(self):
        items = self.container()
        first = items.create_item({"id": "a", "pk": "p", "n": 1})
        more = [{"op": "incr", "path": "/n", "value": 1}]
        condition = {"etag": first["_etag"], "match_condition": MatchConditions.IfNotModified}
        items.patch_item("a", "p", more, **condition)
        with self.refused(412):
            items.patch_item("a", "p", more, **condition)
        self.assertEqual(items.read_item("a", "p")["n"], 2)

    def test_what_is_refused(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "n": 1})
        with self.refused(404):
            items.patch_item("nothing", "p", [{"op": "set", "path": "/n", "value": 1}])
        with self.refused(400):
            items.patch_item("a", "p", [{"op": "set", "path": "/pk", "value": "other"}])
        with self.refused(400):
            items.patch_item("a", "p", [{"op": "set", "path": "/id", "value": "other"}])
        with self.refused(400):
            items.patch_item("a", "p", [{"op": "set", "path": f"/n{n}", "value": 1} for n in range(11)])

    def test_without_content_response(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p", "n": 1})
        reply = items.patch_item("a", "p", [{"op": "incr", "path": "/n", "value": 1}], no_response=True)
        self.assertEqual(dict(reply), {})
        self.assertEqual(items.read_item("a", "p")["n"], 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
