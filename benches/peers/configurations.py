"""What is measured: the systems, and how each is run for each workload."""

import dataclasses
import itertools
import os

PEERS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(PEERS))
LOCAL = os.path.join(PEERS, ".local")
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
WORKLOADS = ("w1", "w2", "w3", "w4")
SYSTEMS = ("tidefeed", "floor", "bytewax", "pathway", "flink")
OTHERS = ("bytewax", "pathway", "flink")

PROGRAMS = {
    "tidefeed": os.path.join(TARGET, "release", "workloads"),
    "floor": os.path.join(LOCAL, "floor-target", "release", "floor"),
    **{system: os.path.join(PEERS, system, "run.py") for system in OTHERS},
}

# What a result is worth, by system: how it comes without recovery, and what survives a crash with it.
NOTHING = "nothing survives"
GUARANTEES = {
    "tidefeed": ("maintained by epoch", "exactly-once effect: records and positions sealed by epoch, commits"),
    "floor": ("once, at the end", None),
    "bytewax": ("once, at the end", "state and positions every second; output at least once"),
    "pathway": ("by commit", "the input every second, computed again after a crash; at least once"),
    "flink": ("maintained by mini-batch", "exactly-once state: a checkpoint every second"),
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One way to run a workload with a system."""

    system: str
    workload: str
    workers: int
    recovery: bool
    options: tuple = ()
    note: str = ""

    @property
    def name(self):
        """How the table calls it, beside system and workload."""
        unit = {"floor": "thread", "bytewax": "process", "pathway": "thread", "flink": "parallel"}.get(self.system, "worker")
        plural = {"process": "es", "parallel": ""}.get(unit, "s")
        parts = [f"{self.workers} {unit}{plural if self.workers > 1 else ''}"]
        parts += [self.note] if self.note else []
        if self.system != "floor":
            parts.append("recovery" if self.recovery else "no recovery")
        return ", ".join(parts)

    @property
    def guarantees(self):
        """How its results come, and what survives a crash."""
        results, survives = GUARANTEES[self.system]
        return f"{results}; {survives if self.recovery else NOTHING}"

    def command(self, data, checkpoint, out):
        """The command line, with `checkpoint` as the new directory if it wants one."""
        # The one file for one reader. Pathway reads with one whatever it is given.
        whole = os.path.join(data, "orders.jsonl")
        one_reader = self.system == "pathway" or (self.workers == 1 and self.system != "tidefeed")
        split = not one_reader or not os.path.exists(whole)
        command = [PROGRAMS[self.system], self.workload]
        command += ["--data", os.path.join(data, "orders.split2") if split else whole]
        command += ["--customers", os.path.join(data, "customers.jsonl")] if self.workload == "w3" else []
        command += ["--workers", str(self.workers), "--checkpoint", checkpoint if self.recovery else "off"]
        return [*command, "--out", out, *self.options]


def of_tidefeed():
    """Ours."""
    for workload, workers, recovery in itertools.product(WORKLOADS, (1, 2), (False, True)):
        yield Configuration("tidefeed", workload, workers, recovery)


def of_floor():
    """The same by hand."""
    for workload, workers in itertools.product(WORKLOADS, (1, 2)):
        yield Configuration("floor", workload, workers, False)


def of_bytewax():
    """Two processes, and for w1 one too."""
    yield Configuration("bytewax", "w1", 1, True)
    for recovery in (False, True):
        yield Configuration("bytewax", "w1", 2, recovery)
    for workload, recovery in itertools.product(WORKLOADS[1:], (False, True)):
        yield Configuration("bytewax", workload, 2, recovery)


def of_pathway():
    """More than one thread gains nothing on files."""
    for workload, recovery in itertools.product(WORKLOADS, (False, True)):
        yield Configuration("pathway", workload, 1, recovery)
    for recovery in (False, True):
        yield Configuration("pathway", "w2", 2, recovery, ("--read", "upserts"), "upserts")


def of_flink():
    """Two readers. The latest version by arrival is a cheaper operator than by `_lsn`, which w2 shows."""
    for workload, recovery in itertools.product(WORKLOADS, (False, True)):
        arrival = workload != "w1"
        yield Configuration("flink", workload, 2, recovery, ("--latest", "arrival") if arrival else (), "by arrival" if arrival else "")
    for recovery in (False, True):
        yield Configuration("flink", "w2", 2, recovery, (), "by version")


def configurations(systems, workloads):
    """All of them in turns of the systems, so that noise hits them alike."""
    makers = {"tidefeed": of_tidefeed, "floor": of_floor, "bytewax": of_bytewax, "pathway": of_pathway, "flink": of_flink}
    result = []
    for workload in workloads:
        columns = [[c for c in makers[system]() if c.workload == workload] for system in systems]
        rounds = itertools.zip_longest(*columns)
        result += [configuration for turn in rounds for configuration in turn if configuration]
    return result
