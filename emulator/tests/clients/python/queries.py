"""Queries within a partition and across partitions.

The SDK itself merges what the partitions answer: it asks the server for a plan (ordering, aggregates, DISTINCT, OFFSET)
and combines the pages. GROUP BY and several aggregates in one query it refuses across partitions.
"""

import unittest

from common import CosmosTest

COLOURS = ("red", "green", "blue")
ITEMS = [
    {
        "id": f"i{n:02}",
        "pk": f"p{n % 7}",
        "n": n,
        "half": n / 2,
        "colour": COLOURS[n % 3],
        "nested": {"list": [n, n + 1]},
    }
    for n in range(60)
]


class Queries(CosmosTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.items = cls.container(cls)
        for item in ITEMS:
            cls.items.create_item(item)

    def across(self, query, parameters=(), **options):
        named = [{"name": f"@{name}", "value": value} for name, value in dict(parameters).items()]
        return list(
            self.items.query_items(
                query, parameters=named, enable_cross_partition_query=True, **options
            )
        )

    def within(self, query, parameters=(), **options):
        named = [{"name": f"@{name}", "value": value} for name, value in dict(parameters).items()]
        return list(self.items.query_items(query, parameters=named, partition_key="p1", **options))

    def test_parameters_and_where(self):
        rows = self.across(
            "SELECT * FROM c WHERE c.n >= @low AND c.n < @high AND c.colour = @colour",
            {"low": 10, "high": 30, "colour": "green"},
        )
        self.assertEqual(sorted(row["n"] for row in rows), [10, 13, 16, 19, 22, 25, 28])
        self.assertEqual(
            sorted(self.within("SELECT VALUE c.n FROM c WHERE c.n > @low", {"low": 30})),
            [36, 43, 50, 57],
        )
        rows = self.across("SELECT VALUE c.n FROM c WHERE c.colour IN ('red', @b) AND NOT (c.n > 5)", {"b": "blue"})
        self.assertEqual(sorted(rows), [0, 2, 3, 5])

    def test_projection(self):
        rows = self.across("SELECT c.id, c.nested.list[1] AS second, c.missing FROM c WHERE c.n = 8")
        self.assertEqual(rows, [{"id": "i08", "second": 9}])
        self.assertEqual(self.across("SELECT VALUE {who: c.id} FROM c WHERE c.n = 8"), [{"who": "i08"}])

    def test_order_by_across_partitions(self):
        self.assertEqual(self.across("SELECT VALUE c.n FROM c ORDER BY c.n"), list(range(60)))
        rows = self.across("SELECT c.id, c.n FROM c ORDER BY c.n DESC", max_item_count=7)
        self.assertEqual([row["n"] for row in rows], list(range(59, -1, -1)))

    def test_order_by_text_within_a_partition(self):
        rows = self.within("SELECT * FROM c WHERE c.n < 30 ORDER BY c.colour, c.n DESC")
        expected = sorted(
            (item for item in ITEMS if item["pk"] == "p1" and item["n"] < 30),
            key=lambda item: (item["colour"], -item["n"]),
        )
        self.assertEqual([row["n"] for row in rows], [item["n"] for item in expected])

    def test_aggregates_across_partitions(self):
        for text, expected in (
            ("COUNT(1)", 60),
            ("SUM(c.n)", 1770),
            ("AVG(c.n)", 29.5),
            ("MIN(c.n)", 0),
            ("MAX(c.half)", 29.5),
        ):
            with self.subTest(text):
                self.assertEqual(self.across(f"SELECT VALUE {text} FROM c"), [expected])
        self.assertEqual(self.across("SELECT VALUE COUNT(1) FROM c WHERE c.colour = 'red'"), [20])
        self.assertEqual(self.across("SELECT VALUE COUNT(1) FROM c WHERE c.n > 1000"), [0])

    def test_aggregates_within_a_partition(self):
        numbers = [item["n"] for item in ITEMS if item["pk"] == "p1"]
        rows = self.within(
            "SELECT COUNT(1) AS many, SUM(c.n) AS total, AVG(c.n) AS mean, MIN(c.n) AS least, MAX(c.n) AS most FROM c"
        )
        self.assertEqual(
            rows,
            [{
                "many": len(numbers), "total": sum(numbers), "mean": sum(numbers) / len(numbers),
                "least": min(numbers), "most": max(numbers),
            }],
        )

    def test_distinct(self):
        self.assertEqual(sorted(self.across("SELECT DISTINCT VALUE c.colour FROM c")), sorted(COLOURS))
        self.assertEqual(
            self.across("SELECT DISTINCT VALUE c.pk FROM c ORDER BY c.pk"), [f"p{n}" for n in range(7)]
        )
        self.assertEqual(sorted(self.within("SELECT DISTINCT VALUE c.colour FROM c")), sorted(COLOURS))

    def test_group_by_within_a_partition(self):
        rows = self.within("SELECT c.colour, COUNT(1) AS many, SUM(c.n) AS total FROM c GROUP BY c.colour")
        expected = {}
        for item in ITEMS:
            if item["pk"] == "p1":
                many, total = expected.get(item["colour"], (0, 0))
                expected[item["colour"]] = (many + 1, total + item["n"])
        self.assertEqual({row["colour"]: (row["many"], row["total"]) for row in rows}, expected)

    def test_offset_limit_and_top(self):
        self.assertEqual(
            self.across("SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 5 LIMIT 4"), [5, 6, 7, 8]
        )
        self.assertEqual(self.across("SELECT TOP 3 VALUE c.n FROM c ORDER BY c.n DESC"), [59, 58, 57])
        self.assertEqual(len(self.across("SELECT TOP 10 * FROM c")), 10)
        self.assertEqual(
            self.within("SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 2 LIMIT 2"), [15, 22]
        )

    def test_pages_and_resuming_by_token_within_a_partition(self):
        def pages(token=None):
            return self.items.query_items(
                "SELECT VALUE c.n FROM c WHERE c.n >= 0", partition_key="p1", max_item_count=4
            ).by_page(token)

        whole = [list(page) for page in pages()]
        self.assertEqual([len(page) for page in whole], [4, 4, 1])
        first = pages()
        self.assertEqual(list(next(first)), whole[0])
        token = first.continuation_token
        self.assertTrue(token)
        self.assertEqual([list(page) for page in pages(token)], whole[1:])

    def test_pages_and_resuming_by_token_in_a_feed_range(self):
        seen = []
        for feed_range in self.items.read_feed_ranges():
            token = None
            while True:
                pages = self.items.query_items(
                    "SELECT VALUE c.n FROM c", feed_range=feed_range, max_item_count=4
                ).by_page(token)
                try:
                    page = list(next(pages))
                except StopIteration:
                    break
                self.assertLessEqual(len(page), 4)
                seen += page
                token = pages.continuation_token
                if token is None:
                    break
        self.assertEqual(sorted(seen), list(range(60)))

    def test_pages_across_partitions(self):
        pages = self.items.query_items(
            "SELECT VALUE c.n FROM c", enable_cross_partition_query=True, max_item_count=9
        ).by_page()
        sizes, seen = [], []
        for page in pages:
            page = list(page)
            sizes.append(len(page))
            seen += page
        self.assertLessEqual(max(sizes), 9)
        self.assertEqual(sorted(seen), list(range(60)))

    def test_a_malformed_query_is_400(self):
        with self.refused(400):
            self.across("SELECT * FROM c WHERE c.n >")


if __name__ == "__main__":
    unittest.main(verbosity=2)
