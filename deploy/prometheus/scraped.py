"""What is asked of the samples that Prometheus has of a job. Pure: samples come in, and what is wrong is raised.

Samples are as Prometheus's API tells a range of them: a list of {"metric": labels, "values": [[seconds, text], ...]}.
"""

import re

COUNTER = re.compile(r".+_(total|bucket|count|sum)$")
STARTED = "process_start_time_seconds"
STATES = 8
STAGES = 4
#: Physical partitions of each container.
PARTITIONS = 4


class Wrong(AssertionError):
    """Something is not as it should be."""


def named(matrix, name):
    """By instance: the samples of a metric that has one series for each."""
    found = {}
    for series in matrix:
        if series["metric"]["__name__"] == name:
            found[series["metric"]["instance"]] = [(at, float(value)) for at, value in series["values"]]
    return found


def check_up(matrix, gone, interval_s):
    """There is a scrape each interval, and it succeeded unless the process was gone.

    `gone` has, by instance, from when to when nobody listened.
    """
    said = []
    took = named(matrix, "scrape_duration_seconds")
    for instance, samples in sorted(named(matrix, "up").items()):
        times = [at for at, _ in samples]
        longest = max(after - before for before, after in zip(times, times[1:]))
        if longest > 2.5 * interval_s:
            raise Wrong(f"{instance} was not scraped for {longest:.1f} s")
        lasted = dict(took[instance])
        down = [at for at, up in samples if up != 1]
        for at in down:
            # A scrape that began before the process was gone may still fail by that.
            begun, ended = at - 0.1, at + lasted.get(at, 0) + 0.25
            if not any(a <= ended and b >= begun for a, b in gone[instance]):
                raise Wrong(f"{instance} did not answer at {at:.3f}, and was there; gone were {gone[instance]}")
        absent = ", ".join(f"{b - a:.1f} s" for a, b in gone[instance]) or "never"
        said.append(f"{instance}: {len(times)} scrapes, at most {longest:.2f} s apart, {len(down)} failed; gone: {absent}")
    return said


def lives(matrix):
    """By instance: at each scrape that succeeded, when the process had begun."""
    return {instance: dict(samples) for instance, samples in named(matrix, STARTED).items()}


def check_counters(matrix):
    """As long as a process lives, no counter goes back or is away; returns how many were looked at."""
    of = lives(matrix)
    looked = 0
    for series in matrix:
        labels = series["metric"]
        if not COUNTER.match(labels["__name__"]):
            continue
        looked += 1
        life = of[labels["instance"]]
        values = {at: float(value) for at, value in series["values"]}
        last = None
        for at, began in sorted(life.items()):
            now = values.get(at)
            if last and last[0] == began:
                if now is None:
                    raise Wrong(f"{labels} has no sample at {at:.3f}")
                if now < last[1]:
                    raise Wrong(f"{labels} went from {last[1]} to {now} at {at:.3f}")
            last = None if now is None else (began, now)
    if looked == 0:
        raise Wrong("there are no counters")
    return looked


def of_job(series):
    """And not of Prometheus, which adds some for each target."""
    return not series["metric"]["__name__"].startswith(("up", "scrape_"))


def check_bound(matrix, table, parts):
    """So many series at any time of each instance, and at most as many as the parts of the job make by the table of metrics."""
    bound = sum(most_series(*metric, parts) for metric in metrics(table))
    ever = {}
    for series in matrix:
        instance = series["metric"]["instance"]
        ever[instance] = ever.get(instance, 0) + of_job(series)
    for instance, count in ever.items():
        if count > bound:
            raise Wrong(f"{instance} has had {count} series, and its parts make {bound}")
    return bound, ever


def metrics(table):
    """Name, labels and description of each metric of docs/metrics.md."""
    lines = (re.match(r"\| `([a-z_]+)` \| ([^|]*)\| (.*)", line) for line in table.splitlines())
    return [(line[1], re.findall(r"`([a-z_]+)`", line[2]), line[3]) for line in lines if line]


def most_series(name, labels, told, parts):
    """Of a metric, of a job with so many parts."""
    of = {
        (): 1,
        ("job_name", "version", "process"): 1,
        ("state",): STATES,
        ("stage",): STAGES,
        ("source", "range"): parts.get("ranges"),
        ("sink", "partition"): parts.get("sink", 0) * PARTITIONS,
        ("operator", "name"): parts.get("arrangements" if name.startswith("tidefeed_arrangement") else "operators"),
    }
    most = of.get(tuple(labels)) or (parts.get(labels[0]) if len(labels) == 1 else None)
    if most is None:
        raise Wrong(f"say how many series {name} may have by its labels {labels}")
    # Of a histogram each has its buckets, a sum and a count.
    return most * (parts["buckets"] + 2) if told.startswith("histogram") else most


def at_times(matrix):
    """How many series each instance has at its first and at its last scrape that succeeded."""
    found = {}
    for instance, life in lives(matrix).items():
        times = sorted(life)
        of = [one for one in matrix if one["metric"]["instance"] == instance and of_job(one)]
        count = lambda at: sum(any(when == at for when, _ in one["values"]) for one in of)
        found[instance] = (count(times[0]), count(times[-1]))
    return found


def selftest():
    """What is wrong is found."""

    def series(name, *values, **labels):
        samples = [[at, str(value)] for at, value in enumerate(values) if value is not None]
        return {"metric": {"__name__": name, "instance": "a", **labels}, "values": samples}

    def wrong(of, *given):
        try:
            of(*given)
        except Wrong:
            return True
        return False

    began = series(STARTED, 5, 5, 5, 9)
    assert check_counters([began, series("x_total", 1, 2, 2, 0)]) == 1, "another process begins at 0"
    assert wrong(check_counters, [began, series("x_total", 1, 2, 1, 0)]), "a counter goes back"
    assert wrong(check_counters, [began, series("x_total", 1, None, 1, 0)]), "a counter is away"
    assert wrong(check_counters, [began]), "no counters"
    took = series("scrape_duration_seconds", 0.01, 0.01, 0.01, 0.01)
    gaps = [series("up", 1, None, None, 1), took]
    assert wrong(check_up, gaps, {"a": []}, 1), "a gap"
    fails = [series("up", 1, 1, 0, 1), took]
    assert wrong(check_up, fails, {"a": [(0.2, 0.8)]}, 1), "it was there"
    check_up(fails, {"a": [(1.8, 2.6)]}, 1)
    parts = {"sink": 2, "buckets": 3}
    table = "| `x_total` | `sink` | what |\n| `y` | | what |"
    assert sum(most_series(*one, parts) for one in metrics("| `h` | `stage` | histogram, of it |")) == 20
    assert wrong(check_bound, [], "| `z` | `a`, `b` | what |", parts), "labels that nobody knows"
    three = [series("x_total", 1, sink=str(n)) for n in range(2)] + [series("y", 1)]
    assert check_bound(three, table, parts) == (3, {"a": 3})
    assert wrong(check_bound, [*three, series("x_total", 1, sink="more")], table, parts), "a series too many"
