"""Made-up reports for the page's own test, one function for each scenario. None of these numbers is measured.

A scenario is a function of the tick, a count of seconds, to a report as `jobs/src/status/report.rs` has it.
"""

import math
import time

FORM = 1
#: After so many reports the run of the scenario `failed` fails, and the next report is the last.
FAILS_AFTER = 3
STAGES = ("sealed_ms", "frontier_ms", "written_ms", "committed_ms")


def wave(tick, low, high, period=17):
    """Something that goes up and down."""
    return low + (high - low) * (0.5 + 0.5 * math.sin(tick * 2 * math.pi / period))


class Flow:
    """Builds a dataflow: operators in order, and channels."""

    def __init__(self, tick):
        self.tick, self.operators, self.channels = tick, [], []
        self.root = self.add("dataflow", scope=None, is_scope=True)

    def add(self, name, scope=0, busy=0.01, rate=0.0, after=(), is_scope=False, exchanged=False, **more):
        number = len(self.operators)
        busy = busy * wave(self.tick + number, 0.9, 1.0)
        self.operators.append(
            {
                "id": number,
                "name": name,
                "scope": scope,
                "is_scope": is_scope,
                "source": None,
                "sink": None,
                "busy_share": busy,
                "busiest_share": min(1.0, busy * 1.15),
                "records_in": int(rate * (self.tick + 60)),
                "records_in_per_s": rate,
                "frontier_lag_ms": 240,
                "frontier": 1_790_000_000_000 + self.tick * 1000,
                "arranged_rows": None,
                "arranged_bytes": None,
                "queued": 0,
                **more,
            }
        )
        for one in [after] if isinstance(after, int) else after:
            self.channels.append({"from": one, "to": number, "records": int(rate * 60), "records_per_s": rate, "exchanged": exchanged})
        return number

    def link(self, a, b, rate=0.0):
        self.channels.append({"from": a, "to": b, "records": int(rate * 60), "records_per_s": rate, "exchanged": False})

    def done(self):
        return {"operators": self.operators, "channels": self.channels}


def flights(tick, factor=1.0):
    """Two sources, a join, a loop and two sinks."""
    flow = Flow(tick)
    rate = 4200.0 * factor
    flow.operators[0]["busy_share"] = 0.4
    flights = flow.add("flights", busy=0.12, rate=rate, source="flights", frontier_lag_ms=40)
    airports = flow.add("airports", busy=0.01, rate=3.0, source="airports", frontier_lag_ms=40)
    decode = flow.add("Decode", busy=0.18, rate=rate, after=flights)
    keyed = flow.add("Map: by airport", busy=0.04, rate=rate, after=decode)
    by_airport = flow.add(
        "Arrange: by airport", busy=0.22, rate=rate, after=keyed, exchanged=True, arranged_rows=1_204_882, arranged_bytes=188_400_000
    )
    names = flow.add("Arrange: names", busy=0.01, rate=3.0, after=airports, exchanged=True, arranged_rows=6072, arranged_bytes=902_000)
    join = flow.add("Join: names of airports", busy=0.31, rate=rate * 1.1, after=(by_airport, names))
    delays = flow.add(
        "Reduce: delay by airport and hour of the day",
        busy=0.64,
        rate=rate,
        after=join,
        exchanged=True,
        arranged_rows=88_310,
        arranged_bytes=24_700_000,
    )
    loop = flow.add("Routes", busy=0.09, rate=rate / 3, after=join, is_scope=True)
    feedback = flow.add("Feedback", scope=loop, busy=0.01, rate=rate / 8)
    step = flow.add("Concatenate", scope=loop, busy=0.01, rate=rate / 3, after=(loop, feedback))
    reach = flow.add("Join: next leg", scope=loop, busy=0.05, rate=rate / 3, after=step)
    least = flow.add("Reduce: least", scope=loop, busy=0.03, rate=rate / 6, after=reach, arranged_rows=41_000, arranged_bytes=7_100_000)
    flow.link(least, feedback, rate / 8)
    flow.link(least, loop, rate / 6)
    flow.add("delays", busy=0.15, rate=rate / 4, after=delays, exchanged=True, sink="delays")
    flow.add("routes", busy=0.05, rate=rate / 6, after=loop, exchanged=True, sink="routes")
    return flow


def many(tick, scopes=40, each=24):
    """A thousand operators: scopes side by side with chains and branches in them."""
    flow = Flow(tick)
    sources = [flow.add(f"source {n}", busy=0.1, rate=900.0, source=f"source-{n}") for n in range(4)]
    ends = []
    for n in range(scopes):
        scope = flow.add(
            f"View {n}", is_scope=True, busy=wave(tick + n, 0.05, 0.6), rate=900.0, after=[sources[n % 4]] + ends[-1:] * (n % 3 == 0)
        )
        last = scope
        for m in range(each - 1):
            name = ("Map", "Filter", "Arrange", "Reduce", "Join", "Consolidate")[m % 6]
            branch = [last] if m % 8 else [last, scope]
            queued = 1200 if (n, m) == (7, 9) else 0
            last = flow.add(
                f"{name} {n}.{m}",
                scope=scope,
                busy=wave(tick + n * 5 + m, 0.0, 0.05),
                rate=wave(tick + m, 500, 900),
                after=branch,
                queued=queued,
            )
        flow.operators[last]["busy_share"] = flow.operators[last]["busiest_share"] = 0.9 if n == 7 else 0.1
        flow.link(last, scope, 300.0)
        ends.append(scope)
    for n in range(4):
        flow.add(f"sink {n}", busy=0.2, rate=300.0, after=ends[n::4], sink=f"sink-{n}")
    while len(flow.operators) < 1000:
        flow.add(f"Inspect {len(flow.operators)}", after=ends[-1], rate=10.0)
    return flow


def feed_range(number, tick, **more):
    return {
        "range": f"{number * 0x10:02X}-{number * 0x10 + 0x10:02X}",
        "process": number % 2,
        "worker": number % 4,
        "state": "caught-up",
        "trouble": None,
        "records": 120_000 + 500 * tick,
        "records_per_s": wave(tick + number, 380, 560),
        "ru": 9100.5,
        "ru_per_s": wave(tick + number, 30, 50),
        "behind_ms": int(wave(tick + number, 180, 900)),
        "remaining": 0,
        "token_age_ms": 400,
        "answered_ms": 120,
        "decode_errors": 0,
        **more,
    }


def source(name, kind, ranges):
    total = lambda field: sum(one[field] for one in ranges)
    return {
        "name": name,
        "kind": kind,
        "records": total("records"),
        "records_per_s": total("records_per_s"),
        "bytes": total("records") * 420,
        "bytes_per_s": total("records_per_s") * 420,
        "ru": total("ru"),
        "ru_per_s": total("ru_per_s"),
        "decode_errors": 0,
        "dead_letters": 0,
        "watermark_at_ms": None,
        "ranges": ranges,
    }


def sink(name, tick, **more):
    return {
        "name": name,
        "kind": "cosmos",
        "upserts": 88_000 + tick * 900,
        "deletes": 410,
        "documents_per_s": wave(tick, 850, 1100),
        "ignored": 12,
        "ru": 912_000.0,
        "ru_per_s": wave(tick, 5200, 6900),
        "ru_budget_per_s": 10_000.0,
        "requests": 4100,
        "requests_per_s": 41.0,
        "in_flight": 6,
        "throttled": 0,
        "throttled_share": 0.0,
        "dead_letters": 0,
        "writing_ms": 35,
        "partitions": [
            {"partition": str(n), "documents_per_s": 240.0 + n, "ru_per_s": 1500.0 + n, "in_flight": n % 3, "throttled_share": 0.0}
            for n in range(4)
        ],
        **more,
    }


def epochs(tick, now, slow=1.0, stuck=None, flying=3):
    """`stuck` is the stage that the newest do not come to."""
    recent, length = [], 60
    for n in range(length):
        minted = now - (length - n) * 400
        times = [v * slow * wave(tick + n, 0.7, 1.3, 13) for v in (45, 80, 210, 260)]
        done = len(STAGES) if n < length - flying else max(0, length - n - 1) if stuck is None else STAGES.index(stuck)
        recent.append(
            {"epoch": minted, "minted_at_ms": minted}
            | {stage: at if i < done else None for i, (stage, at) in enumerate(zip(STAGES, times))}
        )
    committed = recent[length - flying - 1]["epoch"]
    return {
        "minted": recent[-1]["epoch"],
        "sealed": recent[-2]["epoch"],
        "committed": committed,
        "oldest_ms": now - recent[length - flying]["minted_at_ms"],
        "latency_p50_ms": 255.0 * slow,
        "latency_p99_ms": 340.0 * slow,
        "recent": recent,
    }


def process(number, tick, workers=2, **more):
    return {
        "process": number,
        "address": f"10.0.0.{number + 4}:2101" if number > 0 else None,
        "state": "running",
        "missing": None,
        "heard_ms": 0 if number == 0 else 300,
        "memory_bytes": 412_000_000 + number * 9_000_000,
        "cpu": wave(tick + number, 1.1, 1.7),
        "open_files": 64,
        "tokio_tasks": 31,
        "workers": [{"worker": number * workers + n, "busy_share": wave(tick + n, 0.3, 0.8), "queued": 0} for n in range(workers)],
        **more,
    }


def culprit(kind, detail, **more):
    return {"kind": kind, "process": 0, "since_ms": 12_400, "quiet_ms": 12_400, "detail": detail, **more}


def holds(sentence="running; nothing holds it", state="running", found=None, also=()):
    said = {"state": state, "stalled": found is not None, "sentence": sentence, "process": 0}
    if found:
        said["culprit"] = found
    if also:
        said["also"] = list(also)
    return said


def healthy(tick):
    now = int(time.time() * 1000)
    return {
        "form": FORM,
        "at_ms": now,
        "job": {
            "name": "flight-delays",
            "version": "0.9.0",
            "generation": 12,
            "process": 0,
            "processes": 2,
            "workers": 4,
            "started_at_ms": now - 7_384_000,
            "state_for_ms": 7_301_000,
        },
        "holds": holds(),
        "epochs": epochs(tick, now),
        "checkpoint": {
            "location": "az://checkpoints/flight-delays",
            "last_commit_at_ms": now - 310,
            "last_base_at_ms": now - 191_000,
            "commits": 17_204,
            "bases": 38,
            "seals": 34_411,
            "objects_written": 51_653,
            "bytes_written": 3_912_000_000,
            "bytes_per_s": 512_000.0,
            "objects_deleted": 49_100,
            "write_p50_ms": 14.2,
            "write_p99_ms": 61.0,
        },
        "sources": [
            source("flights", "cosmos", [feed_range(n, tick) for n in range(8)]),
            source("airports", "cosmos", [feed_range(0, tick, records_per_s=3.0, ru_per_s=2.0)]),
        ],
        "sinks": [sink("delays", tick), sink("routes", tick, ru_budget_per_s=None, documents_per_s=120.0, ru_per_s=760.0)],
        "graph": flights(tick).done(),
        "processes": [process(n, tick) for n in range(2)],
    }


def throttled(tick):
    report = healthy(tick)
    found = culprit(
        "sink",
        "sink delays: 3 batches of epoch 1790000012000 are not acknowledged, 429 from partition 2",
        name="delays",
        epoch=1_790_000_012_000,
        quiet_ms=2100,
    )
    behind = culprit("commit", "nothing is committed, as sink delays is not through", since_ms=12_000)
    report["holds"] = holds(
        "epoch 1790000012000 waits for sink delays, which partition 2 throttles (for 12.4 s)", found=found, also=[behind]
    )
    parts = [
        {"partition": str(n), "documents_per_s": 20.0, "ru_per_s": 2500.0, "in_flight": 4, "throttled_share": 0.82 if n == 2 else 0.01}
        for n in range(4)
    ]
    report["sinks"][0] |= {
        "ru_per_s": 9960.0,
        "throttled": 4100 + tick,
        "throttled_share": 0.64,
        "dead_letters": 3,
        "writing_ms": 12_400,
        "documents_per_s": 80.0,
        "partitions": parts,
    }
    report["epochs"] = epochs(tick, report["at_ms"], slow=3.0, stuck="written_ms", flying=20)
    for one in report["graph"]["operators"]:
        if one["sink"] == "delays":
            one |= {"queued": 48_200, "frontier_lag_ms": 12_400}
    for one in report["sources"][0]["ranges"][:4]:
        one |= {"state": "backpressure", "behind_ms": 9000, "remaining": 4100}
    report["checkpoint"]["last_commit_at_ms"] = report["at_ms"] - 12_000
    return report


def stalled(tick):
    report = healthy(tick)
    found = culprit(
        "reader", "feed range 30-40 of flights is not answered: connection refused", name="flights", range="30-40", worker=3, process=1
    )
    report["holds"] = holds("feed range 30-40 of source flights fails on process 1: connection refused (for 12.4 s)", found=found)
    report["sources"][0] |= {"decode_errors": 2, "dead_letters": 2}
    # Of a target that does not count its requests.
    report["sinks"][1] |= {"in_flight": None, "partitions": []}
    report["sources"][0]["ranges"][3] |= {
        "state": "failing",
        "trouble": "503, then: connection refused (7 times)",
        "behind_ms": None,
        "remaining": 812_004,
        "records_per_s": 0.0,
        "token_age_ms": 12_400,
        "answered_ms": 12_400,
    }
    return report


def resume(tick):
    report = healthy(tick)
    found = culprit("loading", "the checkpoint is loaded: 41 % of 3.9 GB", since_ms=4100, quiet_ms=0)
    report["holds"] = holds("resuming: the checkpoint is being loaded, 41 % (for 4.1 s)", state="resuming", found=None, also=[found])
    report["job"] |= {"state_for_ms": 4100, "started_at_ms": report["at_ms"] - 9000}
    report["epochs"] |= {"recent": [], "oldest_ms": None}
    for one in report["sources"]:
        for each in one["ranges"]:
            each |= {"state": "reading", "behind_ms": None, "remaining": 90_000}
    return report


def dead_peer(tick):
    report = healthy(tick)
    found = culprit("silent", "process 1 at 10.0.0.5:2101 says nothing", process=1, name="10.0.0.5:2101")
    waits = culprit("member", "process 1 has not sealed epoch 1790000012000", process=1, epoch=1_790_000_012_000)
    report["holds"] = holds("process 1 at 10.0.0.5:2101 says nothing (for 12.4 s)", found=found, also=[waits])
    report["processes"][1] |= {"state": None, "heard_ms": 12_400}
    nothing = {"memory_bytes": 0, "cpu": 0.0, "open_files": 0, "tokio_tasks": 0, "workers": []}
    untold = "its report is not understood: run one version everywhere"
    report["processes"] += [
        process(2, tick) | nothing | {"state": None, "heard_ms": None},
        process(3, tick) | nothing | {"state": None, "missing": untold},
    ]
    report["job"]["processes"] = 4
    for one in report["sources"][0]["ranges"]:
        if one["process"] == 1:
            one |= {"records_per_s": 0.0, "ru_per_s": 0.0, "token_age_ms": 12_800, "answered_ms": 12_520}
    return report


def failed(tick):
    """The run fails; of what it counted nothing is left in its last report."""
    if tick < FAILS_AFTER:
        return healthy(tick)
    report = empty(tick)
    report["job"] |= {"name": "flights", "version": "0.1.0", "generation": 7, "processes": 1, "workers": 2, "state_for_ms": 30}
    found = culprit("failed", "the run has failed: sink delays (exit code 9, its log says why)", name=None, since_ms=30, quiet_ms=30)
    report["holds"] = holds("process 0: the run has failed: sink delays (exit code 9, its log says why)", state="ended", found=found)
    return report


def thousand(tick):
    report = healthy(tick)
    report["graph"] = many(tick).done()
    states = ("caught-up", "reading", "throttled")
    ranges = [
        feed_range(n, tick, range=f"{n:04X}-{n + 1:04X}", state=states[n % 50 == 1 or 2 * (n % 97 == 5)], behind_ms=n * 3)
        for n in range(400)
    ]
    report["sources"] = [source("flights", "cosmos", ranges)]
    report["sinks"] = [sink(f"sink-{n}", tick) for n in range(4)]
    report["job"] |= {"processes": 4, "workers": 32}
    report["processes"] = [process(n, tick, workers=8) for n in range(4)]
    return report


def empty(_tick):
    """A job that has only begun: nothing is known."""
    now = int(time.time() * 1000)
    zero = dict.fromkeys(
        ("commits", "bases", "seals", "objects_written", "bytes_written", "bytes_per_s", "objects_deleted", "write_p50_ms", "write_p99_ms"),
        0,
    )
    return {
        "form": FORM,
        "at_ms": now,
        "job": {
            "name": "",
            "version": "",
            "generation": None,
            "process": 0,
            "processes": 0,
            "workers": 0,
            "started_at_ms": 0,
            "state_for_ms": 10,
        },
        "holds": holds("starting", state="starting"),
        "epochs": {"minted": 0, "sealed": 0, "committed": 0, "oldest_ms": None, "latency_p50_ms": 0.0, "latency_p99_ms": 0.0, "recent": []},
        "checkpoint": {"location": "", "last_commit_at_ms": None, "last_base_at_ms": None} | zero,
        "sources": [],
        "sinks": [],
        "graph": {"operators": [], "channels": []},
        "processes": [],
    }


def markup(tick):
    """Names that would be markup if they were not shown as text."""
    bad = '<img src=x onerror="window.hit=1">'
    report = throttled(tick)
    report["job"]["name"] = bad
    report["holds"]["sentence"] = f"sink {bad} is slow"
    report["holds"]["culprit"] |= {"name": bad, "detail": bad}
    report["sources"][0]["name"] = bad
    report["sources"][0]["ranges"][0] |= {"range": bad, "trouble": bad}
    report["sinks"][0]["name"] = bad
    report["checkpoint"]["location"] = bad
    report["processes"][0]["address"] = bad
    for one in report["graph"]["operators"]:
        one["name"] = f"{bad} {one['name']}"
    return report


SCENARIOS = {
    "healthy": healthy,
    "throttled": throttled,
    "stalled": stalled,
    "resume": resume,
    "dead-peer": dead_peer,
    "failed": failed,
    "thousand": thousand,
    "empty": empty,
    "markup": markup,
    "token": healthy,
    "old": healthy,
}


def without_unknown(value):
    """What is not known is left out."""
    if isinstance(value, dict):
        return {name: without_unknown(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_unknown(one) for one in value]
    return value
