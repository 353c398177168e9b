#!/usr/bin/env python3
"""Runs a command, and measures it with all that it starts.

    measure.py [--reference FILE --out FILE] [--timeout S] COMMAND...

Prints one line of JSON. The command says in lines `NAME=value` what only it can know: `ENGINE_S`, the seconds from the first
byte read to the last result, `EVENTS`, and whatever else is worth keeping. Linux only: figures come from /proc.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

from reference import difference

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_SECONDS = 0.03
# A run is noisy if other processes used more than this share of one core meanwhile.
MOST_NOISE = 0.15
FACT = re.compile(r"^([A-Z][A-Z_0-9]*)=(\S+)$", re.MULTILINE)
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Run:
    """One run of a command. Memory is in MB of 2^20 bytes."""

    engine_s: float | None
    events: int | None
    wall_s: float
    cpu_s: float
    # The largest peak of any one process.
    memory_one_mb: float
    # The peak of the sum over all processes, sampled: pages that processes share count for each.
    memory_tree_mb: float
    # CPU time of everything else on the machine, as a share of one core.
    noise: float
    # Why the run does not count: it failed, or its output is not the reference.
    error: str | None
    facts: dict

    @property
    def quiet(self):
        """Whether the rest of the machine was idle."""
        return self.noise <= MOST_NOISE


class MemorySampler(threading.Thread):
    """Samples the memory of this process's descendants until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.peak_one = self.peak_tree = 0

    def run(self):
        while not self.stopped.wait(SAMPLE_SECONDS):
            self.sample()

    def sample(self):
        """Takes one sample."""
        processes = descendants(os.getpid())
        self.peak_tree = max(self.peak_tree, sum(processes.values()))
        self.peak_one = max([self.peak_one, *processes.values()])

    def stop(self):
        """Ends the sampling."""
        self.stopped.set()
        self.join()


def descendants(root):
    """Resident bytes by process id, of all processes below `root`."""
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append((int(name), int(fields[21]) * PAGE))
    found, parents = {}, [root]
    while parents:
        for process, resident in children.get(parents.pop(), []):
            found[process] = resident
            parents.append(process)
    return found


def machine_cpu_seconds():
    """CPU time that the machine has used since it started."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_cpu_seconds():
    """CPU time of this process, which samples."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def wait_until_quiet(seconds):
    """Waits until the machine was idle for two seconds, or for `seconds`; returns whether it was."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = machine_cpu_seconds()
        time.sleep(2)
        if (machine_cpu_seconds() - before) / 2 < MOST_NOISE:
            return True
    return False


def reap(leader):
    """Waits for all children and those that they leave behind.

    Returns the leader's exit code, the CPU seconds of all, and the largest resident set of one, in MB.
    """
    code, cpu, largest = None, 0.0, 0
    while True:
        try:
            process, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return code, cpu, largest / 1024
        cpu += usage.ru_utime + usage.ru_stime
        largest = max(largest, usage.ru_maxrss)
        if process == leader:
            code = os.waitstatus_to_exitcode(status)


def kill_descendants():
    """Kills what this process has started."""
    for process in descendants(os.getpid()):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def measure(command, reference=None, output=None, timeout=900, environment=None):
    """Runs `command` and returns a `Run`. No other children of this process may run meanwhile."""
    # Processes whose parents end become children of this one, so that none is missed.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A child counts the memory of the process that it was forked from as its own.
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sampler, timer = MemorySampler(), threading.Timer(timeout, kill_descendants)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        machine, own, start = machine_cpu_seconds(), own_cpu_seconds(), time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        sampler.start()
        timer.start()
        process.returncode, cpu, largest = reap(process.pid)
        wall = time.monotonic() - start
        timer.cancel()
        sampler.stop()
        others = machine_cpu_seconds() - machine - cpu - (own_cpu_seconds() - own)
        log.seek(0)
        text = log.read()
    facts = dict(FACT.findall(text))
    engine, events = facts.pop("ENGINE_S", None), facts.pop("EVENTS", None)
    return Run(
        engine_s=float(engine) if engine else None,
        events=int(events) if events else None,
        wall_s=round(wall, 3),
        cpu_s=round(cpu, 2),
        memory_one_mb=round(largest if largest > own_mb else sampler.peak_one / 2**20, 1),
        memory_tree_mb=round(max(sampler.peak_tree / 2**20, largest if largest > own_mb else 0), 1),
        noise=round(max(0.0, others) / wall, 3),
        error=failure(process.returncode, wall > timeout, engine, text, reference, output),
        facts=facts,
    )


def failure(code, timed_out, engine, text, reference, output):
    """Why a run does not count, or None."""
    if timed_out:
        return "it did not end in time and was killed"
    if code != 0:
        return f"it ended with {code}; its last lines:\n{text[-2000:]}"
    if engine is None:
        return f"it printed no ENGINE_S; its last lines:\n{text[-2000:]}"
    wrong = difference(reference, output) if reference else None
    return f"its output is wrong: {wrong}" if wrong else None


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="what the output must equal, lines in whatever order")
    parser.add_argument("--out", help="the output that is compared; the command gets it by its own options")
    parser.add_argument("--timeout", type=float, default=900)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command or bool(args.reference) != bool(args.out):
        parser.error("give a COMMAND, and --reference and --out both or neither")
    run = measure(args.command, args.reference, args.out, args.timeout)
    print(json.dumps(dataclasses.asdict(run)))
    sys.exit(run.error is not None)


if __name__ == "__main__":
    main()
