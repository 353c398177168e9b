#!/usr/bin/env python3
"""Runs a workload with bytewax: as many processes as workers, because its threads share Python's lock."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import launcher  # noqa: E402

FIRST_PORT = 21_000
SNAPSHOT_SECONDS = "1"


def processes(args, python, environment):
    """Starts every process, and returns them."""
    # Not where there is a folder `bytewax`: Python would look there for the package, too.
    place = {"cwd": environment["SCRATCH"], "env": environment}
    command = [python, "-m", "bytewax.run", "flow:flow"]
    recovery = launcher.checkpoint_directory(args)
    if recovery:
        # As many partitions as there are processes, so that each writes its own SQLite file.
        subprocess.run([python, "-m", "bytewax.recovery", recovery, str(args.workers)], check=True, **place)
        command += ["-r", recovery, "-s", SNAPSHOT_SECONDS, "-b", "0"]
    if args.workers == 1:
        return [subprocess.Popen(command, **place)]
    addresses = ";".join(f"localhost:{FIRST_PORT + i}" for i in range(args.workers))
    return [subprocess.Popen([*command, "-i", str(i), "-a", addresses], **place) for i in range(args.workers)]


def collect(scratch, out):
    """Puts the processes' results and times together; returns the seconds from the first read to the last write."""
    parts, starts, ends = [], [], []
    for name in sorted(os.listdir(scratch)):
        with open(os.path.join(scratch, name), encoding="utf-8") as file:
            text = file.read()
        kind = name.split(".")[0]
        if kind == "result":
            parts += text.splitlines(keepends=True)
        else:
            (starts if kind == "start" else ends).append(float(text))
    with open(out, "w", encoding="utf-8") as file:
        file.writelines(sorted(parts))
    return max(ends) - min(starts)


def main():
    """The command."""
    parser = launcher.parser(__doc__)
    parser.add_argument("--shards", type=int, default=64, help="state objects that hold all orders; 0: one for each order")
    args = parser.parse_args()
    python = launcher.python_of("bytewax")
    with tempfile.TemporaryDirectory(prefix="bytewax-") as scratch:
        environment = {
            **os.environ,
            "PYTHONPATH": HERE,
            "WORKLOAD": args.workload,
            "DATA": args.data,
            "CUSTOMERS": args.customers or "",
            "SCRATCH": scratch,
            "SHARDS": str(args.shards),
        }
        codes = [process.wait() for process in processes(args, python, environment)]
        if any(codes):
            sys.exit(f"bytewax ended with {codes}")
        print(f"ENGINE_S={collect(scratch, args.out):.3f}")
    if args.checkpoint != "off":
        print(f"CHECKPOINT_MB={launcher.directory_mb(args.checkpoint)}")


if __name__ == "__main__":
    main()
