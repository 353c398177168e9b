"""Situations in which something holds a job: each is brought about, and the page must name what it is.

A situation starts the test job with real load over the embedded server, waits until nothing holds it, does the harm, and waits for the
banner. Where the harm can be undone, the banner must go with it.
"""

import resource
import socket
from contextlib import ExitStack

from browser import Failed
from programs import Emulator, Orders, Shop, Store
from test_page import Test

NAMED_S = 15
CLEARED_S = 20
SECRET = {"TIDEFEED_CLUSTER_SECRET": "the secret of this test"}


class Scene(Test):
    """A job, its load, and its page."""

    def __init__(self, name, stage, folder):
        super().__init__(self, stage.browser, None)
        self.name, self.stage, self.folder, self.emulator = name, stage, folder, stage.emulator
        self.open_things = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open_things.close()

    def keep(self, thing):
        return self.open_things.enter_context(thing)

    def shop(self, *options, folder=None, **more):
        folder = self.folder / (folder or "a")
        folder.mkdir(exist_ok=True)
        return self.keep(Shop(self.stage.programs / "shop", folder, self.emulator, self.name, *options, **more))

    def begin(self, *options, **more):
        """A job that runs, with orders coming, and its page."""
        self.emulator.database(self.name)
        job = self.shop(*options, **more)
        self.orders()
        self.watch(job)
        return job

    def orders(self):
        self.keep(Orders(self.emulator, self.name))

    def watch(self, job):
        self.at = job.at
        self.page = self.keep(self.browser.open(f"{job.at}/", 1100, 900))
        self.flows()

    def flows(self):
        """Waits until epochs are committed and nothing holds the job."""
        self.page.until("window.tidefeed?.report?.epochs.committed > 0 && document.querySelector('#banner').dataset.level === 'ok'", CLEARED_S)

    def names(self, kind, *said, seconds=NAMED_S, **culprit):
        """Waits until the banner names this kind of culprit, and says all this; then looks at the culprit that it shows."""
        holds = "".join(f" && document.querySelector('#sentence').textContent.includes({text!r})" for text in said)
        try:
            self.page.until(f"document.querySelector('#verdict').textContent === 'Stalled by: {kind}'{holds}", seconds)
        except Failed:
            raise Failed(f"instead of {kind} ({', '.join(said)}): {self.page.text('#verdict')}: {self.page.text('#sentence')}") from None
        # Of one report, as the next may say more.
        found = self.page.evaluate(
            "({ ...tidefeed.report.holds, verdict: document.querySelector('#verdict').textContent, "
            "sentence: document.querySelector('#sentence').textContent, level: document.querySelector('#banner').dataset.level, "
            "shown: document.querySelector('#cause-list li')?.textContent })"
        )
        print(f"    {self.name}: {found['sentence']}", flush=True)
        self.same("it is marked", found["level"], "bad")
        for field, wanted in {"kind": kind, **culprit}.items():
            self.same(f"{field} of the culprit", found["culprit"].get(field), wanted)
        for field in ("name", "range"):
            self.so(f"the cause has its {field}: {found['shown']}", str(culprit.get(field) or "") in found["shown"])
        return found

    def clears(self):
        """Waits until nothing holds the job."""
        try:
            self.page.until("document.querySelector('#banner').dataset.level === 'ok'", CLEARED_S)
        except Failed:
            raise Failed(f"it is still held: {self.page.text('#sentence')}") from None
        self.same("no cause is left", self.page.evaluate("document.querySelector('#causes').hidden"), True)

    def ends(self, job, code, *said):
        """Waits for the end of the job, after which the page still says why."""
        self.same("exit code", job.ended(), code)
        self.page.until("document.querySelector('#state').textContent === 'ended' && document.body.hasAttribute('data-old')", NAMED_S)
        print(f"    {self.name}: {self.page.text('#verdict')}: {self.page.text('#sentence')}", flush=True)
        self.says("#verdict", "The run has failed")
        self.says("#sentence", "the run has failed", f"exit code {code}", *said)
        self.says("#old", "The job ended at ")
        self.so("sinks are those before the end", self.count("#sink-list article") > 0)
        self.clean(allowed=["ERR_", "Failed to fetch", "network error"])


def range_frozen(scene):
    """A physical partition of the source does not answer."""
    scene.begin()
    emulator = scene.emulator
    frozen = {"operation": "change-feed", "database": scene.name, "container": "orders", "partition": 2, "action": "freeze"}
    emulator.hurt(frozen)
    named = emulator.partitions(scene.name, "orders")[2]
    scene.names("reader", "does not answer", name="orders", range=named, process=0)
    others = [one for one, state in zip(scene.column("Feed ranges of orders", "Range"), scene.column("Feed ranges of orders", "State")) if state == "failing"]
    scene.so(f"no other range is failing: {others}", set(others) <= {named})
    emulator.heal(frozen)
    scene.clears()
    scene.clean()


def storm_of_429(scene):
    """A sink's container throttles every write."""
    scene.begin()
    storm = {"operation": ["writes", "bulk-item"], "database": scene.name, "container": "totals", "action": {"status": {"status": 429}}}
    scene.emulator.hurt(storm)
    scene.names("sink", "last answered 429", "repeated", name="totals", process=0)
    scene.emulator.heal(storm)
    scene.clears()
    scene.clean()


def slow_store(scene):
    """The checkpoint store takes long for each object."""
    store = scene.keep(Store())
    scene.begin(checkpoint='url = "s3://bucket/jobs"', environment=store.environment)
    store.slow.set()
    scene.names("seal", "the checkpoint store has not taken the seal", process=0)
    scene.names("commit", "the checkpoint store has not taken the commit", process=0)
    store.slow.clear()
    scene.clears()
    scene.clean()


def slow_operator(scene):
    """The job's code does not come back."""
    held = scene.folder / "held"
    scene.begin(sinks=[("totals", "/id")], environment={"SHOP_CODE": "held", "SHOP_HELD_BY": str(held)})
    held.touch()
    found = scene.names("operator", "does not come back from operator Stateful: sums", name="Stateful: sums", process=0)
    scene.so("a worker is named", found["culprit"]["worker"] in (0, 1))
    held.unlink()
    scene.clears()
    scene.clean()


def dead_peer(scene):
    """A process of two says nothing any more, and then is gone."""
    scene.emulator.database(scene.name)
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    checkpoint = f'directory = "{scene.folder / "checkpoint"}"'
    options = lambda process: ("--process", process, "--hosts", ",".join(hosts), "--peer-timeout", 10_000)
    first, second = [
        scene.shop(*options(process), folder=str(process), checkpoint=checkpoint, environment=SECRET) for process in (0, 1)
    ]
    scene.orders()
    scene.watch(first)
    second.stop()
    scene.names("silent", f"process 1 at {hosts[1]} has said nothing", process=1)
    second.go_on()
    scene.clears()
    second.kill()
    scene.ends(first, 10, "process 1")


def full_disk(scene):
    """The files of the checkpoint may not grow."""
    job = scene.begin()
    limit(job, 0)
    scene.ends(job, 7)


def dead_letter_stop(scene):
    """More documents are refused for good than the sink's configuration bears."""
    job = scene.begin(sink="dead_letters_per_minute = 3")
    refused = {"operation": "bulk-item", "database": scene.name, "container": "totals", "action": {"status": {"status": 413}}}
    scene.emulator.hurt(refused)
    scene.ends(job, 9, "sink totals")
    scene.emulator.heal(refused)


def token_expired(scene):
    """A position in the feed is older than what the service keeps."""
    # Of its own, as its clock is put forward.
    scene.emulator = scene.keep(Emulator(scene.stage.programs / "tidefeed-emulator", "--retention-seconds", 3600))
    source = 'mode = "all_versions_and_deletes"'
    job = scene.begin(source=source)
    scene.ends(job, 7, "source orders")


def limit(program, size):
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (size, resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)[1]))


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


SITUATIONS = {one.__name__: one for one in (range_frozen, storm_of_429, slow_store, slow_operator, dead_peer, full_disk, dead_letter_stop, token_expired)}
