"""Situations in which something holds a job: each is brought about, and the page must name what it is.

A situation starts the test job with real load over the embedded server, waits until nothing holds it, does the harm, and waits for the
banner. Where the harm can be undone, the banner must go with it.
"""

import resource
import socket

from programs import Store

SECRET = {"TIDEFEED_CLUSTER_SECRET": "the secret of this test"}


def range_frozen(scene):
    """A physical partition of the source does not answer."""
    scene.begin()
    emulator = scene.emulator
    frozen = {"operation": "change-feed", "database": scene.name, "container": "orders", "partition": 2, "action": "freeze"}
    emulator.hurt(frozen)
    named = emulator.partitions(scene.name, "orders")[2]
    shown = emulator.shown(scene.name, "orders")[2]
    scene.names("reader", f"feed range {shown} of source orders does not answer", name="orders", range=named, process=0)
    emulator.heal(frozen)
    scene.clears()
    scene.clean()


def storm_of_429(scene):
    """A sink's container throttles every write."""
    scene.begin()
    storm = {"operation": ["writes", "bulk-item"], "database": scene.name, "container": "totals", "action": {"status": {"status": 429, "retry_after_ms": 1000}}}
    scene.emulator.hurt(storm)
    scene.names("sink", "last answered 429", "repeated", name="totals", process=0)
    scene.emulator.heal(storm)
    scene.clears()
    scene.clean()


def slow_store(scene):
    """The checkpoint store takes long for each seal, then for each commit."""
    store = scene.keep(Store())
    scene.begin(checkpoint='url = "s3://bucket/jobs"', environment=store.environment)
    store.slow = {"seal"}
    scene.names("seal", "the checkpoint store has not taken the seal", process=0)
    store.slow = {"commit"}
    scene.names("commit", "the checkpoint store has not taken the commit", process=0)
    store.slow = set()
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
    # The lease is longer than the silence: whoever outlives it ends.
    checkpoint = f'directory = "{scene.folder / "checkpoint"}"\nlease_ms = 60_000'
    options = lambda process: ("--process", process, "--hosts", ",".join(hosts), "--peer-timeout", 16_000)
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
    scene.ends(job, 7, "epoch", "File too large")


def dead_letter_stop(scene):
    """More documents are refused for good than the sink's configuration bears."""
    job = scene.begin(sink="dead_letters_per_minute = 3")
    refused = {"operation": "bulk-item", "database": scene.name, "container": "totals", "action": {"status": {"status": 413}}}
    scene.emulator.hurt(refused)
    scene.ends(job, 9, "sink totals stopped", f"too many writes of container {scene.name}/totals are refused")
    scene.emulator.heal(refused)


def token_expired(scene):
    """A position in the feed is older than what the service keeps."""
    # Of its own, as its clock is put forward.
    scene.own_emulator("--retention-seconds", 3600)
    emulator = scene.emulator
    job = scene.begin(source='mode = "all_versions_and_deletes"')
    frozen = {"operation": "change-feed", "database": scene.name, "container": "orders", "partition": 1, "action": "freeze"}
    emulator.hurt(frozen)
    named = emulator.partitions(scene.name, "orders")[1]
    scene.names("reader", "does not answer", name="orders", range=named)
    emulator.admin("POST", "clock", {"advance_ms": 7_200_000})
    emulator.heal(frozen)
    # Every position is: the range that asks first says so.
    scene.ends(job, 7, "the position in feed range ", f" of {scene.name}/orders is older than the retention")


def limit(program, size):
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (size, resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE)[1]))


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


SITUATIONS = {one.__name__: one for one in (range_frozen, storm_of_429, slow_store, slow_operator, dead_peer, full_disk, dead_letter_stop, token_expired)}
