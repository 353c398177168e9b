"""What every script shares: a client, a container of its own for each test, and the server's admin calls.

The address and the key come from COSMOS_ENDPOINT and COSMOS_KEY.
"""

import json
import os
import unittest
import urllib.request
import uuid

from azure.cosmos import CosmosClient, PartitionKey
from azure.cosmos.exceptions import CosmosHttpResponseError

ENDPOINT = os.environ["COSMOS_ENDPOINT"].rstrip("/")
KEY = os.environ["COSMOS_KEY"]

# The server is on loopback: whatever proxy the environment names is not for it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def admin(path, body=None):
    """One admin call, which needs no signature; returns the JSON reply."""
    request = urllib.request.Request(
        f"{ENDPOINT}/_emulator/{path}",
        data=json.dumps(body if body is not None else {}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with _OPENER.open(request, timeout=30) as reply:
        return json.load(reply)


def advance_clock(milliseconds):
    """Moves the server's clock forward."""
    admin("clock", {"advance_ms": milliseconds})


def range_of(response):
    """Id of the physical partition that a write went to: the head of its session token."""
    return response.get_response_headers()["x-ms-session-token"].split(":")[0]


def strip(item):
    """An item without the properties that the server adds."""
    return {name: value for name, value in item.items() if not name.startswith("_")}


def ids(items):
    """The ids of items, in their order."""
    return [item["id"] for item in items]


class CosmosTest(unittest.TestCase):
    """A test with a client and a database; `self.container()` makes a container of its own."""

    @classmethod
    def setUpClass(cls):
        cls.client = CosmosClient(ENDPOINT, KEY)
        cls.database = cls.client.create_database(f"py-{uuid.uuid4().hex[:8]}")

    @classmethod
    def tearDownClass(cls):
        cls.client.delete_database(cls.database.id)

    def container(self, *paths, **options):
        kind = "MultiHash" if len(paths) > 1 else "Hash"
        key = PartitionKey(list(paths) if len(paths) > 1 else (paths or ("/pk",))[0], kind=kind)
        return self.database.create_container(f"c-{uuid.uuid4().hex[:8]}", key, **options)

    def split(self, container, range_id):
        return admin(f"dbs/{self.database.id}/colls/{container.id}/ranges/{range_id}/split")

    def merge(self, container, *range_ids):
        return admin(
            f"dbs/{self.database.id}/colls/{container.id}/merge", {"ranges": list(range_ids)}
        )

    def refused(self, status, substatus=None):
        """Context in which a call must fail with this status."""
        return _Refused(self, status, substatus)


class _Refused:
    def __init__(self, test, status, substatus):
        self.test, self.status, self.substatus = test, status, substatus

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.test.assertIsNotNone(error, f"the call succeeded instead of failing with {self.status}")
        if not isinstance(error, CosmosHttpResponseError):
            return False
        self.error = error
        self.test.assertEqual(error.status_code, self.status, str(error))
        if self.substatus is not None:
            self.test.assertEqual(error.sub_status, self.substatus, str(error))
        return True
