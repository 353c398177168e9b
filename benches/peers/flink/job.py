"""The workloads in Flink SQL; `run.py` starts it with its options in the environment.

What makes it fast: mini-batches (off by default), object reuse, and one file for each parallel reader. The print sink wants
a primary key where its parallelism is not that of its input.

LATEST=version takes the version with the largest `_lsn`, in whatever order they come: the planner makes it a ranking.
LATEST=arrival takes the one that came last: the planner makes it a deduplication, which costs less, and is right as long as
the versions of a key come in order, as they do in a file that one reader reads, and in a change feed.
"""

import os
import time

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

WORKLOAD = os.environ["WORKLOAD"]
DATA = os.environ["DATA"]
CUSTOMERS = os.environ["CUSTOMERS"]
PARALLELISM = os.environ["PARALLELISM"]
CHECKPOINT = os.environ["CHECKPOINT"]
STATE = os.environ["STATE"]
LATEST = os.environ["LATEST"]
SCRATCH = os.environ["SCRATCH"]

SOURCE = """CREATE TABLE {name} ({columns}, `_lsn` BIGINT, arrival AS PROCTIME())
    WITH ('connector' = 'filesystem', 'path' = 'file://{path}', 'format' = 'json')"""
SINK = "CREATE TABLE results ({columns}, PRIMARY KEY ({key}) NOT ENFORCED) WITH ('connector' = 'print', 'sink.parallelism' = '1')"
ORDER = {"version": "`_lsn`", "arrival": "arrival"}[LATEST]


def latest(table):
    """The latest version of each row of a table."""
    numbered = f"SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY {ORDER} DESC) AS version FROM {table}"
    return f"(SELECT * FROM ({numbered}) WHERE version = 1)"


TOTALS = ("k STRING, s BIGINT, c BIGINT", "k")
TOP = ("region STRING, place BIGINT, id STRING, amount BIGINT", "region, place")
# The sink's columns and key, and what goes there.
QUERIES = {
    "w1": (TOTALS, "SELECT region, SUM(amount), COUNT(*) FROM orders GROUP BY region"),
    "w2": (TOTALS, f"SELECT region, SUM(amount), COUNT(*) FROM {latest('orders')} GROUP BY region"),
    "w3": (
        TOTALS,
        f"""SELECT c.segment, SUM(o.amount), COUNT(*) FROM {latest('orders')} o
            JOIN {latest('customers')} c ON o.customer = c.id GROUP BY c.segment""",
    ),
    "w4": (
        TOP,
        f"""SELECT region, place, id, amount FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY region ORDER BY amount DESC, id ASC) AS place
            FROM {latest('orders')}) WHERE place <= 10""",
    ),
}


def configuration():
    """The settings of the job."""
    settings = {
        "parallelism.default": PARALLELISM,
        "taskmanager.numberOfTaskSlots": PARALLELISM,
        "taskmanager.memory.managed.size": "512m",
        "pipeline.object-reuse": "true",
        "state.backend.type": STATE,
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "1 s",
        "table.exec.mini-batch.size": "50000",
    }
    if CHECKPOINT:
        settings["execution.checkpointing.interval"] = "1 s"
        settings["execution.checkpointing.dir"] = f"file://{CHECKPOINT}"
        settings["execution.checkpointing.incremental"] = str(STATE == "rocksdb").lower()
    result = Configuration()
    for name, value in settings.items():
        result.set_string(name, value)
    return result


def completed_checkpoints():
    """How many checkpoints the log in the scratch folder tells of."""
    names = [name for name in os.listdir(SCRATCH) if name.endswith(".log")]
    texts = []
    for name in names:
        with open(os.path.join(SCRATCH, name), encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return sum(text.count("Completed checkpoint") for text in texts)


def main():
    """Runs the workload to its end."""
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration()).build()
    tables = TableEnvironment.create(settings)
    orders = "id STRING, customer STRING, region STRING, amount BIGINT"
    tables.execute_sql(SOURCE.format(name="orders", columns=orders, path=DATA))
    if WORKLOAD == "w3":
        tables.execute_sql(SOURCE.format(name="customers", columns="id STRING, segment STRING", path=CUSTOMERS))
    (columns, key), query = QUERIES[WORKLOAD]
    tables.execute_sql(SINK.format(columns=columns, key=key))
    start = time.time()
    job = tables.execute_sql(f"INSERT INTO results {query}").get_job_client()
    result = job.get_job_execution_result().result()
    print(f"ENGINE_S={result.get_net_runtime() / 1000:.3f}\nSUBMIT_TO_END_S={time.time() - start:.3f}", flush=True)
    if CHECKPOINT:
        print(f"CHECKPOINTS={completed_checkpoints()}", flush=True)


main()
