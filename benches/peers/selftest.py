#!/usr/bin/env python3
"""Tests of the comparison itself, without any of the systems: `python3 benches/peers/selftest.py`."""

import hashlib
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "flink"))

import report  # noqa: E402
from changelog import final_rows  # noqa: E402
from configurations import SYSTEMS, WORKLOADS, configurations  # noqa: E402
from figures import Figures, Row  # noqa: E402
from generate import customer_events, order_events, write_data  # noqa: E402
from measure import Run, measure  # noqa: E402
from reference import difference, results, write_references  # noqa: E402
from targets import targets  # noqa: E402

EVENTS = 2_000
SEED = 7


def checksum(lines):
    """A checksum that a change of any byte changes."""
    return hashlib.sha256(b"".join(lines)).hexdigest()[:16]


def orders(events=EVENTS, most_orders=None):
    """The lines of orders."""
    return [line for _, line in order_events(events, SEED, most_orders)]


class Data(unittest.TestCase):
    """The generator."""

    def test_is_the_same_everywhere(self):
        self.assertEqual(checksum(orders()), "ae98d745e99a9e86")
        self.assertEqual(checksum(customer_events(SEED)), "8036dab0bc0e8638")

    def test_more_events_begin_like_fewer(self):
        self.assertEqual(orders(), orders(3 * EVENTS)[:EVENTS])

    def test_orders_are_bounded(self):
        events = [json.loads(line) for line in orders(most_orders=100)]
        self.assertEqual(len({event["id"] for event in events}), 100)
        self.assertEqual([event["_lsn"] for event in events], list(range(1, EVENTS + 1)))

    def test_parts_are_the_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "data")
            write_data(data, EVENTS, SEED)
            parts = []
            for name in ("part-0.jsonl", "part-1.jsonl"):
                with open(os.path.join(data, "orders.split2", name), "rb") as file:
                    parts.append(file.readlines())
            self.assertEqual(sorted(parts[0] + parts[1]), sorted(orders()))
            ids = [{json.loads(line)["id"] for line in part} for part in parts]
            self.assertFalse(ids[0] & ids[1], "an order is in both parts")


def latest(documents):
    """The last version of each document."""
    return {document["id"]: document for document in sorted(documents, key=lambda document: document["_lsn"])}.values()


def total_lines(pairs):
    """Sum and count by key."""
    keys = sorted({key for key, _ in pairs})
    amounts = {key: [amount for other, amount in pairs if other == key] for key in keys}
    return [f"{key}\t{sum(amounts[key])}\t{len(amounts[key])}" for key in keys]


def brute_force():
    """The results of all workloads, the obvious way."""
    events = [json.loads(line) for line in orders()]
    live = latest(events)
    segments = {customer["id"]: customer["segment"] for customer in latest(map(json.loads, customer_events(SEED)))}
    tops = []
    for region in sorted({order["region"] for order in live}):
        ranked = sorted((order for order in live if order["region"] == region), key=lambda order: (-order["amount"], order["id"]))
        tops += [f"{region}\t{rank}\t{order['id']}\t{order['amount']}" for rank, order in enumerate(ranked[:10], 1)]
    return {
        "w1": total_lines([(event["region"], event["amount"]) for event in events]),
        "w2": total_lines([(order["region"], order["amount"]) for order in live]),
        "w3": total_lines([(segments[order["customer"]], order["amount"]) for order in live]),
        "w4": tops,
    }


class References(unittest.TestCase):
    """The right results."""

    def test_equal_the_obvious_computation(self):
        expected = brute_force()
        for split_only in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                data = os.path.join(folder, "data")
                write_data(data, EVENTS, SEED, split_only=split_only)
                found = results(data)
            for workload in WORKLOADS:
                self.assertEqual(found[workload], expected[workload], f"{workload}, seed {SEED}, split only: {split_only}")

    def test_differences_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            right, other = os.path.join(folder, "right"), os.path.join(folder, "other")
            for text, same in (("b\t1\t1\na\t1\t1\n", True), ("a\t1\t1\n", False), ("a\t1\t1\nb\t1\t1\nb\t1\t1\n", False)):
                with open(right, "w", encoding="ascii") as file:
                    file.write("a\t1\t1\nb\t1\t1\n")
                with open(other, "w", encoding="ascii") as file:
                    file.write(text)
                self.assertEqual(difference(right, other) is None, same, text)
            self.assertIn("no output", difference(right, os.path.join(folder, "missing")))

    def test_appear_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "data")
            write_data(data, 100, SEED)
            write_references(data, ["w2"])
            self.assertEqual(sorted(os.listdir(data)), ["customers.jsonl", "orders.jsonl", "orders.split2", "w2.ref"])


class Measuring(unittest.TestCase):
    """What is known of a command that has run."""

    def test_processes_that_are_left_behind_count(self):
        hungry = "x = bytearray(120 << 20); import time\nwhile time.process_time() < 0.3: pass"
        run = measure(["bash", "-c", f"(setsid {sys.executable} -c '{hungry}' &); echo ENGINE_S=0.5; echo EVENTS=3; echo COMMITS=2"])
        self.assertIsNone(run.error)
        self.assertEqual((run.engine_s, run.events, run.facts), (0.5, 3, {"COMMITS": "2"}))
        self.assertGreater(run.memory_one_mb, 120)
        self.assertGreater(run.cpu_s, 0.25)
        self.assertGreater(run.wall_s, 0.25)

    def test_failures_are_errors(self):
        self.assertIn("ended with 3", measure(["bash", "-c", "exit 3"]).error)
        self.assertIn("no ENGINE_S", measure(["true"]).error)
        self.assertIn("not end in time", measure(["sleep", "60"], timeout=0.2).error)
        self.assertIn("no output", measure(["echo", "ENGINE_S=1"], "/dev/null", "/nonexistent/out").error)


class Changelog(unittest.TestCase):
    """What Flink's print sink leaves."""

    def test_replaced_and_removed_rows_are_gone(self):
        lines = ["+I[a, 1, 1]\n", "+I[b, 5, 1]\n", "-U[a, 1, 1]\n", "+U[a, 3, 2]\n", "-D[b, 5, 1]\n"]
        self.assertEqual(final_rows(lines, keys=1), (5, [["a", "3", "2"]]))


def run_of(seconds, memory=100.0, noise=0.0, error=None):
    """A run as it would be measured."""
    return Run(seconds, None, 2 * seconds, seconds, memory, memory, noise, error, {})


def rows_of(rates):
    """Rows of every configuration, each system with its rate; without recovery a tenth faster."""
    rows = []
    for configuration in configurations(SYSTEMS, WORKLOADS):
        seconds = 1_000 / rates[configuration.system] / (1 if configuration.recovery else 1.1)
        rows.append(Row(configuration, 1_000, [run_of(seconds)]))
    return rows


class Comparison(unittest.TestCase):
    """Medians, ratios, targets."""

    def test_targets_are_of_the_like_guarantee(self):
        rows = rows_of({"tidefeed": 900.0, "floor": 1000.0, "bytewax": 100.0, "pathway": 90.0, "flink": 80.0})
        found = {target.text: target for target in targets(Figures(rows), {"tidefeed, 2 workers": 1.5})}
        peer = found["w2, 2 workers, recovery: rate to the best peer with recovery"]
        self.assertAlmostEqual(peer.value, 9.0)
        self.assertTrue(peer.met)
        self.assertAlmostEqual(found["w2, 2 workers, recovery: share of the two-thread floor"].value, 0.9 / 1.1)
        self.assertAlmostEqual(found["w2, 2 workers: rate with recovery to that without"].value, 1 / 1.1)
        self.assertFalse(found["w2: largest to smallest CPU time per event, 1 M to 20 M events"].met)

    def test_what_was_not_measured_is_not_met(self):
        self.assertEqual({target.met for target in targets(Figures([]), {})}, {None})

    def test_noisy_runs_count_only_alone(self):
        configuration = configurations(["floor"], ["w1"])[0]
        row = Row(configuration, 1_000, [run_of(1.0), run_of(9.0, noise=0.9), run_of(8.0, noise=0.9)])
        self.assertEqual(row.median("engine_s"), 1.0)
        row.runs.pop(0)
        self.assertEqual(row.median("engine_s"), 8.5)

    def test_a_wrong_result_is_not_a_figure(self):
        rows = rows_of(dict.fromkeys(SYSTEMS, 10.0))
        rows[0].runs.append(run_of(1.0, error="its output is wrong"))
        figures = Figures(rows)
        self.assertEqual(len(figures.rows), len(rows) - 1)
        self.assertIn("failed: its output is wrong", report.table(rows, figures))

    def test_what_is_saved_is_json(self):
        rows = rows_of(dict.fromkeys(SYSTEMS, 10.0))
        figures = Figures(rows)
        json.dumps(report.as_json(rows, figures, {}))
        json.dumps(report.one_line(figures, targets(figures, {})))
        self.assertEqual(report.plot(figures).count("<rect"), 4 * (2 * (len(SYSTEMS) - 1) + 1))

    def test_docs_keep_what_is_around_a_table(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "page.md")
            start, end = "<!-- growth: written by benches/run -->", "<!-- end of growth -->"
            with open(path, "w", encoding="ascii") as file:
                file.write(f"before\n{start}\nold\n{end}\nafter\n")
            report.replace_between(path, "growth", "new")
            with open(path, encoding="ascii") as file:
                self.assertEqual(file.read(), f"before\n{start}\n\nnew\n\n{end}\nafter\n")
            with self.assertRaises(SystemExit):
                report.replace_between(path, "comparison", "new")

    def test_who_reads_in_parallel_gets_two_files(self):
        with tempfile.TemporaryDirectory() as folder:
            write_data(os.path.join(folder, "data"), 10, SEED)
            for c in configurations(SYSTEMS, WORKLOADS):
                command = c.command(os.path.join(folder, "data"), "CHECKPOINT", "OUT")
                split = any(part.endswith("orders.split2") for part in command)
                self.assertEqual(split, c.system == "tidefeed" or (c.workers == 2 and c.system != "pathway"), command)
                self.assertEqual("CHECKPOINT" in command, c.recovery, command)


if __name__ == "__main__":
    unittest.main()
