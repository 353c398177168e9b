"""The programs of a test: the embedded server, jobs, what writes orders, and a checkpoint store that can be slow."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from browser import Failed

KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
DEADLINE_S = 30.0
POLL_S = 0.05
WRITE_EVERY_S = 0.03


def until(what, holds, deadline_s=DEADLINE_S):
    """Waits until `holds` returns something, and returns it."""
    deadline = time.monotonic() + deadline_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise Failed(f"no {what} within {deadline_s:.0f} s")
        time.sleep(POLL_S)
    return found


class Program:
    """A process, and what it says. Leaving it kills it."""

    def __init__(self, *command, **environment):
        # A file that may not grow is an error, as a full disk is, and no signal.
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            restore_signals=False,
            env={**os.environ, "RUST_LIB_BACKTRACE": "0", "NO_PROXY": "127.0.0.1", **environment},
        )
        self.lines = []
        self.reading = threading.Thread(target=self.read, daemon=True)
        self.reading.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def says(self, pattern):
        """Waits until a line matches, and returns the first group of it."""

        def found():
            if self.process.poll() is not None and not self.reading.is_alive():
                raise Failed(f"it has ended with {self.process.returncode}, without {pattern!r}: {self.lines[-5:]}")
            return next((match[1] for line in list(self.lines) if (match := re.search(pattern, line))), None)

        return until(f"line with {pattern!r} from {self.process.args[0]}", found)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def ended(self):
        """Waits for its end, and returns its exit code."""
        return self.process.wait(DEADLINE_S)


class Emulator(Program):
    """The embedded server. Tests that share it add faults to those of the others."""

    def __init__(self, executable, *options):
        super().__init__(executable, "--port", "0", *options)
        self.at = self.says(r"listening on (http://\S+)")
        self.host = urlsplit(self.at).netloc
        self.lock = threading.Lock()
        self.rules = []

    def admin(self, method, path, body=None):
        with Connection(self.host) as connection:
            return connection.ask(method, f"/_emulator/{path}", body)

    def hurt(self, *rules):
        with self.lock:
            self.rules += rules
            self.admin("PUT", "faults", {"rules": self.rules})

    def heal(self, *rules):
        with self.lock:
            self.rules = [rule for rule in self.rules if rule not in rules]
            self.admin("PUT", "faults", {"rules": self.rules})

    def database(self, name):
        """A database with a container of orders."""
        with Connection(self.host) as connection:
            connection.data("POST", "dbs", "", "dbs", {"id": name})
            orders = {"id": "orders", "partitionKey": {"paths": ["/region"], "kind": "Hash", "version": 2}}
            connection.data("POST", "colls", f"dbs/{name}", f"dbs/{name}/colls", orders)

    def partitions(self, database, container):
        """The feed ranges of the physical partitions, as a job names them, by id."""
        found = self.admin("GET", f"dbs/{database}/colls/{container}")
        return {one["id"]: f"{one['min']}-{one['max']}" for one in found["partitions"]}

    def shown(self, database, container):
        """The same as the page shows them in a table: without the zeros at the end of a bound."""
        trimmed = lambda one: "-".join(bound and (bound.rstrip("0") + "0" * (len(bound.rstrip("0")) % 2) or "00") for bound in one.split("-"))
        return {partition: trimmed(one) for partition, one in self.partitions(database, container).items()}

    def limit(self, database, container, ru_per_s):
        """Limits each physical partition; `None` for no limit."""
        for one in self.partitions(database, container):
            self.admin("PUT", f"dbs/{database}/colls/{container}/ranges/{one}/throughput", {"ru_per_s": ru_per_s})


class Connection:
    """A connection to the embedded server."""

    def __init__(self, host):
        self.connection = http.client.HTTPConnection(host, timeout=DEADLINE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def ask(self, method, path, body=None, headers=None):
        self.connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise Failed(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text) if text else None

    def data(self, method, kind, link, path, body, **headers):
        """A signed request of the data API."""
        date = formatdate(usegmt=True)
        text = f"{method.lower()}\n{kind}\n{link}\n{date.lower()}\n\n"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
        signed = {
            "authorization": quote(f"type=master&ver=1.0&sig={signature}", safe=""),
            "x-ms-date": date,
            "x-ms-version": "2020-07-15",
            "content-type": "application/json",
        }
        return self.ask(method, f"/{path}", body, signed | headers)


class Orders:
    """Writes orders into a database of the embedded server, all the time, until it is left."""

    def __init__(self, emulator, database):
        self.emulator, self.database = emulator, database
        self.over, self.number, self.failure = threading.Event(), 0, None
        self.thread = threading.Thread(target=self.write, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def write(self):
        link = f"dbs/{self.database}/colls/orders"
        try:
            with Connection(self.emulator.host) as connection:
                while not self.over.wait(WRITE_EVERY_S):
                    self.number += 1
                    region = f"r{self.number % 20}"
                    order = {"id": f"o{self.number % 500}", "region": region, "customer": f"c{self.number % 70}", "cents": 10 * self.number % 2000}
                    headers = {"x-ms-documentdb-partitionkey": json.dumps([region]), "x-ms-documentdb-is-upsert": "true"}
                    connection.data("POST", "docs", link, f"{link}/docs", order, **headers)
        except Exception as error:
            self.failure = error


class Store(ThreadingHTTPServer):
    """Objects behind as much of S3's protocol as a checkpoint needs. Those that are of a kind in `slow` take `SLOW_S` each."""

    SLOW_S = 2
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), StoreHandler)
        self.objects, self.lock = {}, threading.Lock()
        self.slow, self.over = set(), threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def handle_error(self, *_):
        """A job that is killed closes its connections without a word."""

    @property
    def environment(self):
        return {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}",
            "AWS_ALLOW_HTTP": "true",
        }

    def __exit__(self, *_):
        self.over.set()
        self.shutdown()
        self.server_close()


class StoreHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def key(self):
        return unquote(urlsplit(self.path).path).removeprefix("/bucket").strip("/")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        length = headers.pop("length", len(body))
        for name, value in {"Last-Modified": formatdate(usegmt=True), "Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.key()
        if self.server.slow.intersection(key.split("/")):
            self.server.over.wait(Store.SLOW_S)
        with self.server.lock:
            held = key in self.server.objects
            refused = held and self.headers.get("If-None-Match") == "*"
            if not refused:
                self.server.objects[key] = body
        if refused:
            return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def do_GET(self):
        asked = urlsplit(self.path)
        if "list-type" in asked.query:
            return self.list(parse_qs(asked.query))
        body = self.server.objects.get(self.key())
        if body is None:
            return self.missing()
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)?", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, body, ETag=tag)
        first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
        self.answer(206, body[first : last + 1], ETag=tag, Content_Range=f"bytes {first}-{last}/{len(body)}")

    do_HEAD = do_GET

    def do_DELETE(self):
        with self.server.lock:
            self.server.objects.pop(self.key(), None)
        self.answer(204)

    def do_POST(self):
        """Deletes several."""
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall(r"<Key>([^<]*)</Key>", text)
        with self.server.lock:
            for key in keys:
                self.server.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def list(self, asked):
        prefix, apart, after = (asked.get(name, [""])[0] for name in ("prefix", "delimiter", "start-after"))
        with self.server.lock:
            found = sorted((key, len(body)) for key, body in self.server.objects.items() if key.startswith(prefix) and key > after)
        text, folders = "", set()
        for key, size in found:
            folder = key[len(prefix) :].partition(apart) if apart else ("", "", "")
            if folder[1]:
                folders.add(prefix + folder[0] + apart)
            else:
                text += f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
        text += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders))
        self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{text}</ListBucketResult>".encode())


CONFIG = """workers = 2
[account]
endpoint = "{at}"
[http]
stalled_after_ms = 400
[epoch]
min_ms = 0
max_ms = 50
load_ms = 20
[checkpoint]
settle_ms = 50
{checkpoint}
[source.orders]
database = "{database}"
container = "orders"
poll_ms = 2
poll_max_ms = 20
{source}
"""
SINKS = [("totals", "/id"), ("large", "/region"), ("by_customer", "/customer"), ("shares", "/region")]


class Shop(Program):
    """The test job, over a database of the embedded server."""

    def __init__(self, executable, folder, emulator, database, *options, sinks=SINKS, source="", checkpoint=None, sink="", environment=None):
        config = folder / "shop.toml"
        checkpoint = checkpoint or f'directory = "{folder / "checkpoint"}"'
        text = CONFIG.format(at=emulator.at, database=database, source=source, checkpoint=checkpoint)
        for name, key in sinks:
            text += f'[sink.{name}]\ndatabase = "{database}"\ncontainer = "{name}"\npartition_key = ["{key}"]\n'
            text += f"settle_ms = 20\nthrottled_share = 0.3\nthroughput_ru = {{ manual = 40000 }}\n{sink}\n"
        config.write_text(text)
        super().__init__(
            executable, "--config", config, "--http", "127.0.0.1:0", *options, COSMOS_KEY=KEY, RUST_LOG="error,tidefeed=info", **(environment or {})
        )
        self.at = self.says(r"how the job does is at (http://\S+?)/?$")

    def stop(self):
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)
