#!/usr/bin/env python3
"""Runs a workload with Flink SQL, in a local cluster inside the JVM that PyFlink starts; no Python runs for an event."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import launcher  # noqa: E402
from changelog import final_rows  # noqa: E402


def main():
    """The command."""
    parser = launcher.parser(__doc__)
    parser.add_argument("--state", choices=["hashmap", "rocksdb"], default="hashmap")
    parser.add_argument("--latest", choices=["version", "arrival"], default="version", help="which version of a key is the latest")
    args = parser.parse_args()
    checkpoint = launcher.checkpoint_directory(args)
    with tempfile.TemporaryDirectory(prefix="flink-") as scratch:
        environment = {
            **os.environ,
            "WORKLOAD": args.workload,
            "DATA": args.data,
            "CUSTOMERS": args.customers or "",
            "PARALLELISM": str(args.workers),
            "CHECKPOINT": checkpoint or "",
            "STATE": args.state,
            "LATEST": args.latest,
            "SCRATCH": scratch,
            "FLINK_LOG_DIR": scratch,
        }
        changes = os.path.join(scratch, "changes")
        with open(changes, "w", encoding="utf-8") as file:
            command = [launcher.python_of("flink"), os.path.join(HERE, "job.py")]
            code = subprocess.run(command, cwd=scratch, env=environment, stdout=file).returncode
        if code != 0:
            sys.exit(f"flink ended with {code}")
        with open(changes, encoding="utf-8") as file:
            count, rows = final_rows(file, keys=2 if args.workload == "w4" else 1)
    with open(args.out, "w", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)
    print(f"CHANGES={count}")
    if checkpoint:
        print(f"CHECKPOINT_MB={launcher.directory_mb(checkpoint)}")


if __name__ == "__main__":
    main()
