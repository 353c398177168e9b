#!/usr/bin/env python3
"""Checks the alert rules and the dashboard: by Prometheus's own tools, and that every metric they name is one that jobs have.

    check.py

promtool is taken from the Debian package `prometheus`, unpacked below target/, unless it is installed.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT / "target" / "ci-tools" / "prometheus"
# What Prometheus adds itself, for each target.
OF_PROMETHEUS = {"up"}


def unpacked(program):
    """The path of a program of the package."""
    installed = shutil.which(program)
    if installed:
        return installed
    path = TOOLS / "usr" / "bin" / program
    if not path.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        download = ["apt-get", "download", "prometheus"]
        if subprocess.run(download, cwd=TOOLS, capture_output=True).returncode:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(download, cwd=TOOLS, check=True)
        (package,) = TOOLS.glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, TOOLS], check=True)
    return str(path)


def known():
    """The metrics of the documentation, which a test of the program holds to the program."""
    lines = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    return {match[1] for line in lines if (match := re.match(r"\| `([a-z_]+)`", line))}


def named(text):
    """The metrics that are named in an expression or a whole file; of a histogram, its own name."""
    found = re.findall(r"\b((?:tidefeed|process)_[a-z_]+)\b", text)
    return {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name in found}


def check_names(what, names):
    unknown = sorted(names - known() - OF_PROMETHEUS)
    if unknown:
        sys.exit(f"{what} names metrics that jobs do not have: {', '.join(unknown)}")
    print(f"{what}: {len(names)} metrics, all known")


def main():
    promtool = unpacked("promtool")
    for command in [
        ["check", "rules", "tidefeed.rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "tidefeed.rules.test.yml"],
    ]:
        subprocess.run([promtool, *command], cwd=HERE, check=True)
    check_names("the rules", named((HERE / "tidefeed.rules.yml").read_text()))
    dashboard = json.loads((HERE.parent / "grafana" / "tidefeed.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    expressions = " ".join(target["expr"] for target in targets)
    check_names("the dashboard", named(expressions))
    missing = sorted(known() - named(expressions) - {"tidefeed_info"})
    print(f"on no panel: {', '.join(missing)}")


if __name__ == "__main__":
    main()
