"""The workloads in Pathway; `run.py` starts it with its options in the environment.

- A column must not be called `id`: `pw.this.id` is Pathway's own pointer to a row, and grouping by it silently groups by row.
- The latest version is `deduplicate`, which keeps a row until its acceptor takes another one. `primary_key` on a file
  does not replace rows, and `reducers.latest` is wrong within a commit.
- The file connector gives all lines in one commit, so these are runs of a batch: each result is emitted once. With
  READ=upserts a Python connector gives the lines as upserts by primary key, in several commits with retractions.
- Recovery (PERSISTING) keeps the input, which a restart reads again. State of operators is kept only with a licence key.
- w4: Pathway has no reducer of the largest ten that takes retractions, so each region's orders are sorted whole.
"""

import os
import time

import pathway as pw

WORKLOAD = os.environ["WORKLOAD"]
DATA = os.environ["DATA"]
CUSTOMERS = os.environ["CUSTOMERS"]
CHECKPOINT = os.environ["CHECKPOINT"]
READ = os.environ["READ"]
OUT = os.environ["OUT"]
COMMIT_MS = 1_500
SNAPSHOT_MS = 1_000
TOP = 10


class Event(pw.Schema):
    """What the workloads need of a line."""

    order: str
    customer: str
    region: str
    amount: int
    _lsn: int


class Upsert(pw.Schema):
    """A version that replaces the one before."""

    order: str = pw.column_definition(primary_key=True)
    region: str
    amount: int


class Customer(pw.Schema):
    """One version of a customer."""

    customer: str
    segment: str
    _lsn: int


class Upserts(pw.io.python.ConnectorSubject):
    """The lines as upserts, in the order of the file."""

    def __init__(self):
        super().__init__(session_type="upsert")

    def run(self):
        import orjson

        with open(DATA, "rb", buffering=1 << 20) as file:
            for line in file:
                event = orjson.loads(line)
                self.next(order=event["id"], region=event["region"], amount=event["amount"])


def lines(path, schema, id, name):
    """The lines of a file, or of all files in a directory; the property `id` becomes the column `id`'s argument."""
    return pw.io.jsonlines.read(
        path, schema=schema, mode="static", name=name, autocommit_duration_ms=COMMIT_MS, json_field_paths={id: "/id"}
    )


def newer(new, old):
    """Whether a version replaces another."""
    return new > old


def latest_orders():
    """The latest version of each order."""
    if READ == "upserts":
        return pw.io.python.read(Upserts(), schema=Upsert, autocommit_duration_ms=COMMIT_MS, name="orders")
    events = lines(DATA, Event, "order", "orders")
    return events.deduplicate(value=pw.this._lsn, instance=pw.this.order, acceptor=newer)


def totals(table, key):
    """Sum and count by key."""
    return table.groupby(key).reduce(key=key, sum=pw.reducers.sum(pw.this.amount), count=pw.reducers.count())


def by_segment():
    """w3."""
    customers = lines(CUSTOMERS, Customer, "customer", "customers")
    customers = customers.deduplicate(value=pw.this._lsn, instance=pw.this.customer, acceptor=newer)
    orders = latest_orders()
    joined = orders.join(customers, orders.customer == customers.customer).select(customers.segment, orders.amount)
    return totals(joined, pw.this.segment)


@pw.udf(deterministic=True)
def first_orders(ordered: tuple) -> tuple:
    """The first of a region's orders; expressions have no slices."""
    return ordered[:TOP]


def top_by_region():
    """w4: one row for each region, with its ten largest orders."""
    orders = latest_orders().select(pw.this.region, order=pw.make_tuple(-pw.this.amount, pw.this.order))
    sorted_orders = orders.groupby(pw.this.region).reduce(key=pw.this.region, all=pw.reducers.sorted_tuple(pw.this.order))
    return sorted_orders.select(pw.this.key, top=first_orders(pw.this.all))


def view():
    """The table of the workload."""
    if WORKLOAD == "w1":
        return totals(lines(DATA, Event, "order", "orders"), pw.this.region)
    if WORKLOAD == "w2":
        return totals(latest_orders(), pw.this.region)
    return by_segment() if WORKLOAD == "w3" else top_by_region()


class Result:
    """The rows of a view by key, from its changes."""

    def __init__(self):
        self.rows = {}
        self.changes = 0
        self.commits = set()

    def on_change(self, key, row, time, is_addition):
        """Takes in a change; a row's replacement may come before its retraction."""
        self.changes += 1
        self.commits.add(time)
        if is_addition:
            self.rows[row["key"]] = row
        elif self.rows.get(row["key"]) == row:
            del self.rows[row["key"]]

    def write(self):
        """Writes what is left."""
        with open(OUT, "w", encoding="utf-8") as file:
            for key, row in sorted(self.rows.items()):
                if WORKLOAD == "w4":
                    for rank, (amount, order) in enumerate(row["top"], 1):
                        file.write(f"{key}\t{rank}\t{order}\t{-amount}\n")
                else:
                    file.write(f"{key}\t{row['sum']}\t{row['count']}\n")


def main():
    """Runs the workload to its end."""
    result = Result()
    pw.io.subscribe(view(), on_change=result.on_change)
    options = {}
    if CHECKPOINT:
        backend = pw.persistence.Backend.filesystem(CHECKPOINT)
        options["persistence_config"] = pw.persistence.Config(backend, snapshot_interval_ms=SNAPSHOT_MS)
    start = time.time()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, **options)
    result.write()
    print(f"ENGINE_S={time.time() - start:.3f}\nCHANGES={result.changes}\nCOMMITS={len(result.commits)}")


main()
