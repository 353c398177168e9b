#!/usr/bin/env python3
"""Prometheus scrapes jobs that run, and that are made to resume while it does; then it is asked what it has seen.

    scrape.py [--seconds 8] [--programs target/quick]

A supervised job of two processes, of which one is killed with SIGKILL, and a job of one process that goes on with another worker
by itself, so that a run resumes in a process that lives on. Both read a container that is written to all the time. Prometheus runs
with this folder's configuration and rules, but for targets and intervals; it is taken from the Debian package if it is not installed.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from email.utils import formatdate
from pathlib import Path

import scraped
from check import HERE, ROOT, unpacked

KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
SINKS = {"totals": "/id", "large": "/region", "by_customer": "/customer", "shares": "/region"}
INTERVAL_S = 1
DEADLINE_S = 90
AFTER_RESUME_S = 3


def free_ports(count):
    """Ports after each other that are free now."""
    for first in random.sample(range(20_000, 32_000), 200):
        bound = [socket.socket() for _ in range(count)]
        try:
            for at, one in enumerate(bound):
                one.bind(("127.0.0.1", first + at))
            return list(range(first, first + count))
        except OSError:
            continue
        finally:
            for one in bound:
                one.close()
    raise scraped.Wrong("no free ports")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def until(what, so):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            found = so()
        except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise scraped.Wrong(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.05)


class Started:
    """Programs that were started, and end with this."""

    def __init__(self, folder):
        self.folder, self.all = folder, []

    def __enter__(self):
        return self

    def start(self, name, *command, **env):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env={**os.environ, **env})
        self.all.append((name, process))
        return process

    def __exit__(self, failed, *_):
        below = {process.pid: children(process.pid) for _, process in self.all}
        for _, process in self.all:
            if process.poll() is None:
                process.terminate()
        for name, process in self.all:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            for pid in below[process.pid]:
                # Of a supervisor that did not end them.
                if alive(pid, process):
                    os.kill(pid, signal.SIGKILL)
            if failed:
                print(f"-- {name} said", *(self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:], sep="\n")


def children(pid):
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def alive(pid, parent):
    """Whether it is still that program, and not another with the same number."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() == parent.args[0]
    except OSError:
        return False


class Watch(threading.Thread):
    """When nobody listened at a port, as the kernel has it."""

    def __init__(self, ports):
        super().__init__(daemon=True)
        self.gone = {port: [] for port in ports}
        self.over = threading.Event()

    def run(self):
        begun, seen = time.time(), {}
        while not self.over.wait(0.02):
            now = time.time()
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            listening = {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}
            for port in self.gone:
                if port not in listening:
                    continue
                # Each is gone before it is seen first, and then if it is not seen for longer than looks are apart.
                if port not in seen or now - seen[port] > 0.15:
                    self.gone[port].append((seen.get(port, begun), now))
                seen[port] = now


class Load(threading.Thread):
    """Upserts orders, one after the other."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.written, self.over = port, 0, threading.Event()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.over.wait(0.002):
            region = f"r{random.randrange(20)}"
            order = {"id": f"o{random.randrange(3000)}", "region": region}
            order |= {"customer": f"c{random.randrange(50)}", "cents": random.randrange(2000)}
            connection.request("POST", "/dbs/shop/colls/orders/docs", json.dumps(order), headers(region))
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 201):
                print(f"a write was answered with {answer.status}")
                return
            self.written += 1


def headers(region):
    date = formatdate(usegmt=True).lower()
    signed = f"post\ndocs\ndbs/shop/colls/orders\n{date}\n\n".encode()
    proof = base64.b64encode(hmac.digest(base64.b64decode(KEY), signed, hashlib.sha256)).decode()
    return {
        "authorization": urllib.parse.quote(f"type=master&ver=1.0&sig={proof}", safe=""),
        "x-ms-date": date,
        "x-ms-version": "2018-12-31",
        "x-ms-documentdb-is-upsert": "True",
        "x-ms-documentdb-partitionkey": json.dumps([region]),
        "content-type": "application/json",
    }


def job(folder, name, emulator):
    """The configuration of a job that keeps its views in a database of its own."""
    text = f'[account]\nendpoint = "http://127.0.0.1:{emulator}"\n[checkpoint]\nsettle_ms = 50\n'
    text += '[source.orders]\ndatabase = "shop"\ncontainer = "orders"\npoll_ms = 5\npoll_max_ms = 50\n'
    for sink, key in SINKS.items():
        text += f'[sink.{sink}]\ndatabase = "{name}"\ncontainer = "{sink}"\npartition_key = ["{key}"]\nsettle_ms = 20\n'
    (folder / f"{name}.toml").write_text(text)
    return ["--config", folder / f"{name}.toml", "--checkpoint", folder / name]


def prometheus_folder(folder, ports):
    """This folder's configuration with other targets and shorter intervals, and its rules as they are."""
    text = (HERE / "prometheus.yml").read_text()
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    for pattern, instead in [
        (r"scrape_interval: \w+", f"scrape_interval: {INTERVAL_S}s"),
        (r"evaluation_interval: \w+", f"evaluation_interval: {INTERVAL_S}s"),
        (r"targets: \[.*\]", f"targets: [{targets}]"),
    ]:
        text, count = re.subn(pattern, instead, text)
        if count != 1:
            raise scraped.Wrong(f"prometheus.yml has {count} times {pattern}")
    (folder / "prometheus.yml").write_text(text)
    rules = (HERE / "tidefeed.rules.yml").read_text()
    (folder / "tidefeed.rules.yml").write_text(rules)
    return rules.count("- alert:")


def generations(ports):
    status = [get(f"http://127.0.0.1:{port}/status") for port in ports]
    running = all(one["holds"]["state"] in ("running", "idle") for one in status)
    return [one["job"]["generation"] for one in status] if running else None


def resume(supervisor, ports, rescale):
    """Kills one process of the cluster, and lets the other job go on with another worker; returns how long until both ran again."""
    before = generations(ports)
    began = time.monotonic()
    (pid,) = [pid for pid in children(supervisor.pid) if b"\0--process\x001\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, signal.SIGKILL)
    subprocess.run(list(map(str, rescale)), check=True, capture_output=True, timeout=DEADLINE_S)
    after = until("all run again", lambda: (now := generations(ports)) and all(a > b for a, b in zip(now, before)) and now)
    print(f"resumed after {time.monotonic() - began:.1f} s: runs {before}, then {after}")


def check_rules(at, expected):
    groups = get(f"{at}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    if len(rules) != expected:
        raise scraped.Wrong(f"{len(rules)} of {expected} rules are loaded")
    for rule in rules:
        if rule["health"] != "ok" or rule.get("lastError"):
            raise scraped.Wrong(f"rule {rule['name']} is {rule['health']}: {rule.get('lastError')}")
    states = [f"{rule['name']} {rule['state']}" for rule in rules if rule["state"] != "inactive"]
    print(f"{len(rules)} rules, none in error; active: {', '.join(states) or 'none'}")


def check(at, ports, watch, seconds, written):
    query = urllib.parse.urlencode({"query": f'{{job="tidefeed"}}[{int(seconds) + 1}s]'})
    matrix = get(f"{at}/api/v1/query?{query}")["data"]["result"]
    gone = {f"127.0.0.1:{port}": spans for port, spans in watch.gone.items()}
    for line in scraped.check_up(matrix, gone, INTERVAL_S):
        print(line)
    # Each was not there before it began.
    if [len(gone[f"127.0.0.1:{port}"]) for port in ports] != [2, 2, 1]:
        raise scraped.Wrong(f"the processes of the cluster begin anew once, and the other lives on: {gone}")
    print(f"{scraped.check_counters(matrix)} counters, none went back while its process lived")
    began = scraped.lives(matrix)
    starts = [len(set(began[f"127.0.0.1:{port}"].values())) for port in ports]
    runs = [len({run for _, run in scraped.named(matrix, "tidefeed_generation")[f"127.0.0.1:{port}"]}) for port in ports]
    if starts != [2, 2, 1] or min(runs) < 2:
        raise scraped.Wrong(f"processes {starts} and runs {runs} were seen")
    read = max(float(one["values"][-1][1]) for one in matrix if one["metric"]["__name__"] == "tidefeed_source_records_total")
    if not 0 < read <= written:
        raise scraped.Wrong(f"{read} of {written} changes are counted")
    parts = {"source": 1, "sink": len(SINKS), "ranges": scraped.PARTITIONS, "worker": 2}
    parts["buckets"] = len({one["metric"]["le"] for one in matrix if "le" in one["metric"]})
    operators = [get(f"http://127.0.0.1:{port}/status")["graph"]["operators"] for port in ports]
    parts["operators"] = max(map(len, operators))
    parts["arrangements"] = max(sum(one["arranged_rows"] is not None for one in of) for of in operators)
    bound, ever = scraped.check_bound(matrix, (ROOT / "docs" / "metrics.md").read_text(), parts)
    for instance, (first, last) in sorted(scraped.at_times(matrix).items()):
        print(f"{instance}: {first} series at the first scrape, {last} at the last, {ever[instance]} ever")
    print(f"at most {bound} by the parts of each: {parts}")


def scrape(folder, programs, seconds):
    emulator, web, *ports = free_ports(5)
    at = f"http://127.0.0.1:{web}"
    (folder / "seed.json").write_text(
        json.dumps({"databases": [{"id": "shop", "containers": [{"id": "orders", "partitionKey": "/region"}]}]})
    )
    rules = prometheus_folder(folder, ports)
    watch, load = Watch(ports), Load(emulator)
    with Started(folder) as started:
        try:
            served = ["--port", emulator, "--partitions", scraped.PARTITIONS, "--seed-file", folder / "seed.json"]
            started.start("emulator", programs / "tidefeed-emulator", *served)
            until("the emulator listens", lambda: "listening" in (folder / "emulator.log").read_text())
            load.start()
            watch.start()
            prometheus = unpacked("prometheus")
            storage = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
            started.start("prometheus", prometheus, *storage, f"--web.listen-address=127.0.0.1:{web}", "--log.level=warn")
            began = time.monotonic()
            shop, env = programs / "shop", {"COSMOS_KEY": KEY, "RUST_LOG": "tidefeed=info"}
            of_cluster = [*job(folder, "cluster", emulator), "--workers", 1, "--http", f"127.0.0.1:{ports[0]}"]
            supervisor = started.start("cluster", shop, *of_cluster, "--processes", 2, **env)
            alone = job(folder, "alone", emulator)
            started.start("alone", shop, *alone, "--workers", 1, "--http", f"127.0.0.1:{ports[2]}", **env)
            until("all run", lambda: generations(ports))
            scrapes = lambda: len(get(f"{at}/api/v1/query?query=up==1")["data"]["result"]) == len(ports)
            until("Prometheus has scraped all", scrapes)
            begun = time.monotonic()
            time.sleep(max(0, begun + seconds / 3 - time.monotonic()))
            resume(supervisor, ports, [shop, *alone, "rescale", "--workers", 2])
            time.sleep(max(AFTER_RESUME_S, begun + seconds - time.monotonic()))
            check(at, ports, watch, time.monotonic() - began, load.written)
            check_rules(at, rules)
            print(f"{load.written} orders were written in {time.monotonic() - began:.0f} s")
        finally:
            load.over.set()
            watch.over.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of which a third goes by before a process is killed [8]")
    parser.add_argument("--programs", type=Path, default=ROOT / "target" / "quick", help="where shop and tidefeed-emulator are")
    given = parser.parse_args()
    scraped.selftest()
    with tempfile.TemporaryDirectory() as folder:
        try:
            scrape(Path(folder), given.programs.resolve(), given.seconds)
        except scraped.Wrong as wrong:
            sys.exit(f"not so: {wrong}")


if __name__ == "__main__":
    main()
