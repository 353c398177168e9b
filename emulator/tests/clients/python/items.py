"""Point operations: every status, entity tags, hierarchical keys, sizes, session tokens."""

import unittest

from azure.core import MatchConditions
from common import CosmosClient, CosmosTest, ENDPOINT, KEY, ids, strip


class Items(CosmosTest):
    def test_create_read_replace_upsert_delete(self):
        items = self.container()
        created = items.create_item({"id": "a", "pk": "p", "n": 1, "text": "grüße 🌊"})
        self.assertEqual(strip(created), {"id": "a", "pk": "p", "n": 1, "text": "grüße 🌊"})
        for name in ("_rid", "_self", "_etag", "_ts", "_attachments"):
            self.assertIn(name, created)
        self.assertGreater(float(created.get_response_headers()["x-ms-request-charge"]), 0)
        self.assertEqual(items.read_item("a", "p"), dict(created))

        replaced = items.replace_item("a", {"id": "a", "pk": "p", "n": 2})
        self.assertEqual(strip(replaced), {"id": "a", "pk": "p", "n": 2})
        self.assertEqual(replaced["_rid"], created["_rid"])
        self.assertNotEqual(replaced["_etag"], created["_etag"])

        self.assertEqual(items.upsert_item({"id": "a", "pk": "p", "n": 3})["n"], 3)
        self.assertEqual(items.upsert_item({"id": "b", "pk": "p", "n": 4})["n"], 4)
        self.assertEqual(sorted(ids(items.read_all_items())), ["a", "b"])

        items.delete_item("a", "p")
        with self.refused(404):
            items.read_item("a", "p")

    def test_missing_items_are_404(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p"})
        with self.refused(404):
            items.read_item("nothing", "p")
        with self.refused(404):
            items.read_item("a", "another key")
        with self.refused(404):
            items.delete_item("nothing", "p")
        with self.refused(404):
            items.replace_item("nothing", {"id": "nothing", "pk": "p"})

    def test_a_missing_container_or_database_is_404(self):
        with self.refused(404):
            self.database.get_container_client("nothing").read()
        with self.refused(404):
            self.client.get_database_client("nothing").read()

    def test_duplicates_are_409(self):
        items = self.container()
        items.create_item({"id": "a", "pk": "p"})
        with self.refused(409):
            items.create_item({"id": "a", "pk": "p"})
        items.create_item({"id": "a", "pk": "another key"})
        with self.refused(409):
            self.client.create_database(self.database.id)

    def test_bad_ids_are_400(self):
        items = self.container()
        with self.refused(400):
            items.create_item({"pk": "p"})
        with self.refused(400):
            items.create_item({"id": "x" * 1024, "pk": "p"})
        items.create_item({"id": "x" * 1023, "pk": "p"})

    def test_items_of_more_than_2_mb_are_413(self):
        items = self.container()
        with self.refused(413):
            items.create_item({"id": "a", "pk": "p", "text": "x" * (2 * 1024 * 1024)})
        text = "x" * (2 * 1024 * 1024 - 1024)
        items.create_item({"id": "a", "pk": "p", "text": text})
        self.assertEqual(items.read_item("a", "p")["text"], text)

    def test_if_match(self):
        items = self.container()
        first = items.create_item({"id": "a", "pk": "p", "n": 1})
        second = items.replace_item(
            "a", {"id": "a", "pk": "p", "n": 2},
            etag=first["_etag"], match_condition=MatchConditions.IfNotModified,
        )
        stale = {"etag": first["_etag"], "match_condition": MatchConditions.IfNotModified}
        with self.refused(412):
            items.replace_item("a", {"id": "a", "pk": "p", "n": 3}, **stale)
        with self.refused(412):
            items.upsert_item({"id": "a", "pk": "p", "n": 3}, **stale)
        with self.refused(412):
            items.delete_item("a", "p", **stale)
        self.assertEqual(items.read_item("a", "p")["n"], 2)
        items.delete_item(
            "a", "p", etag=second["_etag"], match_condition=MatchConditions.IfNotModified
        )

    def test_if_none_match_on_a_read_is_304(self):
        items = self.container()
        first = items.create_item({"id": "a", "pk": "p"})
        seen = []
        known = {
            "etag": first["_etag"],
            "match_condition": MatchConditions.IfModified,
            "raw_response_hook": lambda raw: seen.append(raw.http_response.status_code),
        }
        items.read_item("a", "p", **known)
        items.upsert_item({"id": "a", "pk": "p", "n": 2})
        changed = items.read_item("a", "p", **known)
        self.assertEqual(seen, [304, 200])
        self.assertEqual(changed["n"], 2)

    def test_hierarchical_partition_keys(self):
        items = self.container("/tenant", "/user", "/session")
        for tenant in ("t1", "t2"):
            for user in ("u1", "u2"):
                for session in (1, 2):
                    items.create_item({
                        "id": f"{tenant}{user}{session}",
                        "tenant": tenant, "user": user, "session": session,
                    })
        self.assertEqual(items.read_item("t1u21", ["t1", "u2", 1])["user"], "u2")
        with self.refused(404):
            items.read_item("t1u21", ["t1", "u2", 2])

        def of(key):
            return sorted(ids(items.query_items("SELECT * FROM c", partition_key=key)))

        self.assertEqual(of(["t1", "u2", 1]), ["t1u21"])
        self.assertEqual(of(["t1", "u2"]), ["t1u21", "t1u22"])
        self.assertEqual(of(["t2"]), ["t2u11", "t2u12", "t2u21", "t2u22"])
        items.delete_item("t1u21", ["t1", "u2", 1])
        self.assertEqual(of(["t1", "u2"]), ["t1u22"])

    def test_keys_of_every_type(self):
        items = self.container()
        keys = ["text", "", 7, -0.5, True, False, None]
        for index, key in enumerate(keys):
            items.create_item({"id": str(index), "pk": key})
        for index, key in enumerate(keys):
            found = items.query_items(
                "SELECT * FROM c WHERE c.id = @id", parameters=[{"name": "@id", "value": str(index)}],
                enable_cross_partition_query=True,
            )
            self.assertEqual([item["pk"] for item in found], [key])
            if key is not None:
                self.assertEqual(items.read_item(str(index), key)["pk"], key)

    def test_content_responses_can_be_switched_off(self):
        items = self.container()
        created = items.create_item({"id": "a", "pk": "p", "n": 1}, no_response=True)
        self.assertEqual(dict(created), {})
        self.assertTrue(created.get_response_headers()["etag"])
        self.assertEqual(dict(items.upsert_item({"id": "a", "pk": "p", "n": 2}, no_response=True)), {})
        replaced = items.replace_item("a", {"id": "a", "pk": "p", "n": 3}, no_response=True)
        self.assertEqual(dict(replaced), {})
        read = items.read_item("a", "p")
        self.assertEqual(read["n"], 3)
        self.assertEqual(read["_etag"], replaced.get_response_headers()["etag"])

    def test_session_tokens(self):
        session = CosmosClient(ENDPOINT, KEY, consistency_level="Session")
        items = self.container()
        items = session.get_database_client(self.database.id).get_container_client(items.id)

        def token(response):
            return response.get_response_headers()["x-ms-session-token"]

        def lsn(text):
            return int(text.split("#")[1] if "#" in text else text.split(":")[1])

        first = token(items.create_item({"id": "a", "pk": "p"}))
        second = token(items.upsert_item({"id": "a", "pk": "p", "n": 2}))
        self.assertEqual(first.split(":")[0], second.split(":")[0])
        self.assertGreater(lsn(second), lsn(first))
        sent = []
        read = items.read_item(
            "a", "p",
            raw_response_hook=lambda raw: sent.append(raw.http_request.headers["x-ms-session-token"]),
        )
        self.assertEqual(sent, [second])
        self.assertEqual(lsn(token(read)), lsn(second))
        self.assertEqual(items.read_item("a", "p", session_token=first)["n"], 2)

    def test_a_wrong_key_is_401(self):
        import base64

        with self.refused(401):
            CosmosClient(ENDPOINT, base64.b64encode(b"another key").decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
