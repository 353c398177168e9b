"""The command line that every system's `run.py` has, like Tidefeed's `workloads` and the floor.

    run.py w1|w2|w3|w4 --data FILE_OR_DIR --out FILE [--customers FILE] [--workers N] [--checkpoint off|DIR]

It prints `ENGINE_S=`, `EVENTS=` if the system knows it, and other facts, and writes the result to FILE.
"""

import argparse
import os
import sys

LOCAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".local")


def python_of(system):
    """The interpreter that `install` made for the system."""
    path = os.path.join(LOCAL, f"venv-{system}", "bin", "python")
    if not os.path.exists(path):
        sys.exit(f"{system} is not installed: run benches/peers/install --only {system}")
    return path


def parser(doc):
    """The options that all have; a system adds its own."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("workload", choices=["w1", "w2", "w3", "w4"])
    result.add_argument("--data", required=True, type=os.path.abspath, help="a file of orders, or a directory of such files")
    result.add_argument("--customers", type=os.path.abspath, help="the file of customers, which only w3 wants")
    result.add_argument("--workers", type=int, default=1)
    result.add_argument("--checkpoint", default="off", help="a directory that does not exist yet; off (default): no recovery")
    result.add_argument("--out", required=True, type=os.path.abspath)
    return result


def checkpoint_directory(args):
    """The new directory to recover from, or None."""
    if args.checkpoint == "off":
        return None
    os.makedirs(args.checkpoint)
    return os.path.abspath(args.checkpoint)


def data_files(path):
    """The files of a directory, or the file itself."""
    return sorted(os.path.join(path, name) for name in os.listdir(path)) if os.path.isdir(path) else [path]


def directory_mb(path):
    """Size of the files below a directory."""
    sizes = (os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
    return round(sum(sizes) / 2**20)
