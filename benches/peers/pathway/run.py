#!/usr/bin/env python3
"""Runs a workload with Pathway, in one process with as many threads as workers."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import launcher  # noqa: E402


def main():
    """The command."""
    parser = launcher.parser(__doc__)
    parser.add_argument("--read", choices=["file", "upserts"], default="file", help="upserts: w2 as upserts by a primary key")
    args = parser.parse_args()
    checkpoint = launcher.checkpoint_directory(args)
    environment = {
        **os.environ,
        "PATHWAY_THREADS": str(args.workers),
        "WORKLOAD": args.workload,
        "DATA": args.data,
        "CUSTOMERS": args.customers or "",
        "CHECKPOINT": checkpoint or "",
        "READ": args.read,
        "OUT": args.out,
    }
    command = [launcher.python_of("pathway"), os.path.join(HERE, "flow.py")]
    with tempfile.TemporaryDirectory(prefix="pathway-") as scratch:
        code = subprocess.run(command, cwd=scratch, env=environment).returncode
    if code != 0:
        sys.exit(f"pathway ended with {code}")
    if checkpoint:
        print(f"CHECKPOINT_MB={launcher.directory_mb(checkpoint)}")


if __name__ == "__main__":
    main()
