"""The workloads in bytewax; `run.py` starts it with its options in the environment.

What makes it fast, and what a user would have to find out:

- Lines are read, parsed and added up by the batch; an operator call for each item costs as much again.
- Orders are kept in few state objects, each with a dict of many (`SHARDS`). One state object for each order is the
  idiomatic way (`SHARDS=0`), and costs more than the work itself.
- Of each batch, what is the same key further down is added up before it is sent.

Results come once, at the end of the input. With recovery, every state object that has changed within the second is
pickled whole. The order in which files are read does not matter: the newest version has the largest `_lsn`.
"""

import heapq
import os
import time
import zlib

import bytewax.operators as op
import orjson
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

WORKLOAD = os.environ["WORKLOAD"]
DATA = os.environ["DATA"]
CUSTOMERS = os.environ["CUSTOMERS"]
SCRATCH = os.environ["SCRATCH"]
SHARDS = int(os.environ["SHARDS"])
# About 5,000 lines; few for each call where every order has a state object.
BATCH_BYTES = 1 << 20 if SHARDS else 200_000
CUSTOMER_SHARDS = 16
TOP = 10
RETAIN = StatefulBatchLogic.RETAIN


def note_time(kind, name):
    """Says when something began or ended."""
    with open(os.path.join(SCRATCH, f"{kind}.{name}"), "w", encoding="utf-8") as file:
        file.write(repr(time.time()))


class Lines(StatefulSourcePartition):
    """The lines of a file, and how far they were read."""

    def __init__(self, path, position):
        note_time("start", os.path.basename(path))
        self.file = open(path, "rb", buffering=1 << 20)
        self.file.seek(position or 0)

    def next_batch(self):
        lines = self.file.readlines(BATCH_BYTES)
        if not lines:
            raise StopIteration()
        return lines

    def snapshot(self):
        return self.file.tell()


class Files(FixedPartitionedSource):
    """The files at a path, each one partition."""

    def __init__(self, path):
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        self.paths = {name: os.path.join(path, name) if name else path for name in names}

    def list_parts(self):
        return list(self.paths)

    def build_part(self, step_id, for_part, resume_state):
        return Lines(self.paths[for_part], resume_state)


class ResultPart(StatelessSinkPartition):
    """One worker's part of the result."""

    def __init__(self, worker):
        self.worker = worker
        self.file = open(os.path.join(SCRATCH, f"result.{worker}"), "w", encoding="utf-8")

    def write_batch(self, items):
        self.file.writelines(items)

    def close(self):
        self.file.close()
        note_time("end", self.worker)


class Result(DynamicSink):
    """The lines of the result."""

    def build(self, step_id, worker_index, worker_count):
        return ResultPart(worker_index)


class Totals(StatefulBatchLogic):
    """Sum and count of a key, emitted at the end of the input."""

    def __init__(self, state):
        self.sum, self.count = state or (0, 0)

    def on_batch(self, values):
        for amount, count in values:
            self.sum += amount
            self.count += count
        return (), RETAIN

    def on_eof(self):
        return [(self.sum, self.count)], RETAIN

    def snapshot(self):
        return self.sum, self.count


def add(totals, key, amount, count):
    """Adds to the sum and count of a key."""
    old = totals.get(key)
    totals[key] = (old[0] + amount, old[1] + count) if old else (amount, count)


class LatestOrder(StatefulBatchLogic):
    """The latest version of one order; emits what that changes in the totals of its group."""

    def __init__(self, state):
        self.latest = state

    def on_batch(self, values):
        changes = []
        for lsn, group, amount in values:
            if self.latest is None or lsn > self.latest[0]:
                if self.latest is not None:
                    changes.append((self.latest[1], (-self.latest[2], -1)))
                changes.append((group, (amount, 1)))
                self.latest = lsn, group, amount
        return changes, RETAIN

    def snapshot(self):
        return self.latest


class LatestOrders(StatefulBatchLogic):
    """The latest versions of many orders; emits what a batch changes in the totals of each group."""

    def __init__(self, state):
        self.orders = state or {}

    def on_batch(self, values):
        orders, totals = self.orders, {}
        for id, lsn, group, amount in values:
            old = orders.get(id)
            if old is not None:
                if lsn <= old[0]:
                    continue
                add(totals, old[1], -old[2], -1)
            orders[id] = (lsn, group, amount)
            add(totals, group, amount, 1)
        return list(totals.items()), RETAIN

    def snapshot(self):
        return dict(self.orders)


class TopOrders(StatefulBatchLogic):
    """The latest versions of many orders; emits their ten largest of each group at the end of the input."""

    def __init__(self, state):
        self.orders = state or {}

    def on_batch(self, values):
        orders = self.orders
        for id, lsn, group, amount in values:
            old = orders.get(id)
            if old is None or lsn > old[0]:
                orders[id] = (lsn, group, amount)
        return (), RETAIN

    def on_eof(self):
        groups = {}
        for id, (_lsn, group, amount) in self.orders.items():
            groups.setdefault(group, []).append((-amount, id))
        return [(group, heapq.nsmallest(TOP, orders)) for group, orders in groups.items()], RETAIN

    def snapshot(self):
        return dict(self.orders)


class TopOfGroup(StatefulBatchLogic):
    """The ten largest of one group; emits them at the end of the input."""

    def __init__(self, state):
        self.top = state or []

    def on_batch(self, values):
        self.top = heapq.nsmallest(TOP, (order for orders in (self.top, *values) for order in orders))
        return (), RETAIN

    def on_eof(self):
        return [self.top], RETAIN

    def snapshot(self):
        return list(self.top)


class Customers(StatefulBatchLogic):
    """Customers with their latest segment and the totals of their orders; emits what changes in the totals of segments.

    A value is ("segment", customer, lsn, segment) or ("orders", customer, amount, count).
    """

    def __init__(self, state):
        # customer: [lsn, segment or None, sum, count]
        self.customers = state or {}

    def on_batch(self, values):
        totals = {}
        for kind, id, first, second in values:
            customer = self.customers.setdefault(id, [0, None, 0, 0])
            if kind == "orders":
                customer[2] += first
                customer[3] += second
                if customer[1] is not None:
                    add(totals, customer[1], first, second)
            elif first > customer[0]:
                if customer[1] is not None:
                    add(totals, customer[1], -customer[2], -customer[3])
                customer[:2] = first, second
                add(totals, second, customer[2], customer[3])
        return list(totals.items()), RETAIN

    def snapshot(self):
        return {id: list(customer) for id, customer in self.customers.items()}


SHARD_KEYS = [str(shard) for shard in range(max(SHARDS, CUSTOMER_SHARDS))]


def shard(id, shards):
    """The key of the state object that holds an order or a customer."""
    return SHARD_KEYS[zlib.crc32(id.encode()) % shards]


def region_totals(lines):
    """Totals of a batch of events by region."""
    totals = {}
    for line in lines:
        event = orjson.loads(line)
        add(totals, event["region"], event["amount"], 1)
    return totals.items()


def keyed_orders(group):
    """A parser of batches of events: `group` is what the view groups by."""

    def by_order(lines):
        events = map(orjson.loads, lines)
        return [(event["id"], (event["_lsn"], event[group], event["amount"])) for event in events]

    def by_shard(lines):
        # Without a call of `shard`: this runs for every event.
        crc32, keys, count, keyed = zlib.crc32, SHARD_KEYS, SHARDS, []
        for event in map(orjson.loads, lines):
            id = event["id"]
            keyed.append((keys[crc32(id.encode()) % count], (id, event["_lsn"], event[group], event["amount"])))
        return keyed

    return by_shard if SHARDS else by_order


def keyed_segments(lines):
    """Versions of customers, by the state object that has them."""
    customers = map(orjson.loads, lines)
    return [(shard(c["id"], CUSTOMER_SHARDS), ("segment", c["id"], c["_lsn"], c["segment"])) for c in customers]


def keyed_order_totals(items):
    """What a batch changes in the totals of customers, added up, by the state object that has them."""
    totals = {}
    for _key, (customer, (amount, count)) in items:
        add(totals, customer, amount, count)
    return [(shard(id, CUSTOMER_SHARDS), ("orders", id, *total)) for id, total in totals.items()]


def added_up(items):
    """Changes of totals by group, those of a batch added up."""
    totals = {}
    for _key, (group, (amount, count)) in items:
        add(totals, group, amount, count)
    return totals.items()


def total_line(item):
    """A line of the result of w1, w2, w3."""
    key, (amount, count) = item
    return f"{key}\t{amount}\t{count}\n"


def top_lines(item):
    """The lines of a region in the result of w4."""
    region, top = item
    return [f"{region}\t{rank}\t{id}\t{-amount}\n" for rank, (amount, id) in enumerate(top, 1)]


def latest_changes(events, group):
    """What events change in the totals of the latest versions by group."""
    keyed = op.flat_map_batch("parse", events, keyed_orders(group))
    return op.stateful_batch("latest", keyed, LatestOrders if SHARDS else LatestOrder)


def dataflow():
    """The dataflow of the workload."""
    result = Dataflow("orders")
    events = op.input("orders_in", result, Files(DATA))
    if WORKLOAD == "w4":
        keyed = op.flat_map_batch("parse", events, keyed_orders("region"))
        tops = op.map("of_region", op.stateful_batch("latest", keyed, TopOrders), lambda item: item[1])
        op.output("out", op.flat_map("line", op.stateful_batch("top", tops, TopOfGroup), top_lines), Result())
        return result
    if WORKLOAD == "w1":
        totals = op.flat_map_batch("parse", events, region_totals)
    elif WORKLOAD == "w2":
        totals = op.flat_map_batch("add_up", latest_changes(events, "region"), added_up)
    else:
        orders = op.flat_map_batch("orders_of", latest_changes(events, "customer"), keyed_order_totals)
        segments = op.flat_map_batch("segment_of", op.input("customers_in", result, Files(CUSTOMERS)), keyed_segments)
        joined = op.stateful_batch("join", op.merge("both", orders, segments), Customers)
        totals = op.flat_map_batch("add_up", joined, added_up)
    op.output("out", op.map("line", op.stateful_batch("total", totals, Totals), total_line), Result())
    return result


flow = dataflow()
