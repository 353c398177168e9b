"""The table, the plot and the figures as JSON."""

import dataclasses
import os
import platform
import re
import subprocess

from configurations import OTHERS, PEERS, ROOT, SYSTEMS, WORKLOADS

TITLES = {
    "w1": "W1: totals by region of all events",
    "w2": "W2: totals by region of the latest version of each order",
    "w3": "W3: W2 by segment, joined with changing customers",
    "w4": "W4: the ten largest orders of each region",
}
HEADER = (
    "system",
    "workload",
    "configuration",
    "events/s, engine",
    "events/s, wall",
    "CPU s",
    "peak MB (one process / all)",
    "guarantees",
    "to the best peer",
    "to the floor",
    "quiet runs",
)


def output_of(*command):
    """What a command prints, or an empty string if it cannot be run."""
    try:
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (result.stdout or result.stderr).strip()


def first_match(pattern, path):
    """The first group of the pattern's first match in a file."""
    with open(path, encoding="utf-8") as file:
        match = re.search(pattern, file.read(), re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


def machine():
    """Processor, memory and kernel."""
    memory = int(first_match(r"^MemTotal:\s+(\d+)", "/proc/meminfo")) / 2**20
    return (
        f"{os.cpu_count()} cores of {first_match(r'^model name.*: (.*)$', '/proc/cpuinfo')}, {memory:.0f} GB, "
        f"Linux {'.'.join(platform.release().split('.')[:2])}"
    )


def versions(systems):
    """The version of each system, and of what runs it."""
    result = {"python": platform.python_version(), "rust": output_of("rustc", "--version").removeprefix("rustc ")}
    changed = "-changed" if output_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    result["tidefeed"] = output_of("git", "rev-parse", "--short", "HEAD") + changed
    for system in (system for system in OTHERS if system in systems):
        result[system] = first_match(r"^[\w-]+==(.*)$", os.path.join(PEERS, system, "requirements.txt"))
    if "flink" in systems:
        java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
        result["java"] = (output_of(java, "-version").splitlines() or ["unknown"])[0]
    return result


def short(number):
    """A rate in thousands or millions."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def times(value):
    """A ratio."""
    return "" if value is None else f"{value:.2f}"


def cells(row, figures):
    """A row of the table."""
    configuration = row.configuration
    start = [configuration.system, configuration.workload, configuration.name]
    if row.error:
        return [*start, "failed: " + row.error.splitlines()[0], *[""] * (len(HEADER) - 4)]
    return [
        *start,
        short(row.rate),
        short(row.wall_rate),
        f"{row.median('cpu_s'):.2f}",
        f"{row.median('memory_one_mb'):.0f} / {row.median('memory_tree_mb'):.0f}",
        configuration.guarantees,
        times(figures.to_peer(row)),
        times(figures.to_floor(row)),
        f"{len(row.quiet)} of {len(row.runs)}",
    ]


def table(rows, figures):
    """The rows as a table in Markdown, by workload."""
    ordered = sorted(rows, key=lambda row: (row.configuration.workload, SYSTEMS.index(row.configuration.system)))
    lines = [HEADER, ["---"] * len(HEADER), *(cells(row, figures) for row in ordered)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(rows, figures, about):
    """All figures, for programs."""
    return {
        **about,
        "rows": [
            {
                **dataclasses.asdict(row.configuration),
                "name": row.configuration.name,
                "events": row.events,
                "error": row.error,
                "runs": [dataclasses.asdict(run) for run in row.runs],
                **({} if row.error else {"rate": row.rate, "to_peer": figures.to_peer(row), "to_floor": figures.to_floor(row)}),
            }
            for row in rows
        ],
    }


def one_line(figures, targets):
    """The ratios, by system, workload and configuration."""
    ratios = {}
    for row in figures.rows:
        c = row.configuration
        name = f"{c.system}_{c.workload}_{c.name}".replace(", ", "_").replace(" ", "_")
        values = {"events_per_second": round(row.rate), "to_peer": figures.to_peer(row), "to_floor": figures.to_floor(row)}
        ratios[name] = {key: value if value is None else round(value, 3) for key, value in values.items()}
    return {"figures": ratios, "targets": {target.text: target.met for target in targets}}


def replace_between(path, name, text):
    """Puts `text` between the marker comments `name` of a file."""
    start, end = f"<!-- {name}: written by benches/run -->", f"<!-- end of {name} -->"
    with open(path, encoding="utf-8") as file:
        before, found, rest = file.read().partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise SystemExit(f"{path} has no lines `{start}` and `{end}`")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{start}\n\n{text}\n\n{end}{after}")


LEFT, RIGHT, BAR, TITLE = 310, 820, 18, 26
STYLE = """
text { font: 12px sans-serif; fill: #1f2328 } .title { font-weight: bold } .axis { stroke: #8c959f }
.tidefeed { fill: #0969da } .floor { fill: #8c959f } .peer { fill: #bc4c00 } .off { fill-opacity: 0.45 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis { stroke: #6e7681 } .tidefeed { fill: #58a6ff } .floor { fill: #6e7681 } .peer { fill: #f0883e }
}
"""


def bars(figures, workload):
    """Label, row and style of each bar of a workload: the fastest configuration of each system, without recovery and with."""
    result = []
    for system in SYSTEMS:
        for recovery in (False, True):
            row = figures.row(system, workload, recovery=recovery)
            if row:
                style = system if system in ("tidefeed", "floor") else "peer"
                off = "" if recovery or system == "floor" else " off"
                result.append((f"{system}, {row.configuration.name}", row, style + off))
    return result


def plot(figures):
    """A bar plot as SVG: events a second of each system's fastest configuration, a scale for each workload."""
    parts, y = [], 10
    for workload in WORKLOADS:
        rows = bars(figures, workload)
        if not rows:
            continue
        most = max(row.rate for _, row, _ in rows)
        parts.append(f'<text class="title" x="10" y="{y + 16}">{TITLES[workload]}, events/s</text>')
        y += TITLE
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{y}" y2="{y + len(rows) * BAR}"/>')
        for label, row, style in rows:
            width = (RIGHT - LEFT - 60) * row.rate / most
            parts.append(f'<text x="{LEFT - 6}" y="{y + 13}" text-anchor="end">{label}</text>')
            parts.append(f'<rect class="{style}" x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{BAR - 4}"/>')
            parts.append(f'<text x="{LEFT + width + 5:.1f}" y="{y + 13}">{short(row.rate)}</text>')
            y += BAR
        y += 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {RIGHT} {y}" role="img">'
    return "\n".join([head, f"<title>Events a second of each system</title><style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


