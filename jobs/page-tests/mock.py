"""Serves the page with made-up reports: http://127.0.0.1:PORT/SCENARIO/, as a job serves it at /.

python3 mock.py [--port 9199] [--every SECONDS]
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from made_up import FAILS_AFTER, SCENARIOS, without_unknown

PAGE = Path(__file__).resolve().parent.parent / "src" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TOKEN = "open sesame"
#: After so many reports the scenario `old` says nothing, until it is let.
OLD_AFTER = 2


class Mock:
    """A server in a thread of its own."""

    def __init__(self, port=0, every=1.0):
        self.every = every
        self.ended = threading.Event()
        self.speaks = threading.Event()
        self.changes = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.mock = self
        self.at = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    def report(self, scenario, tick):
        """Every other report leaves out what is not known; the others have null for it."""
        made = SCENARIOS[scenario](tick)
        return without_unknown(made) if tick % 2 else made


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        _, scenario, *rest = (self.path + "/").split("/")
        path = rest[0] if rest else ""
        if scenario not in SCENARIOS:
            return self.answer(404, "text/plain", "scenarios: " + ", ".join(f"/{name}/" for name in SCENARIOS))
        if path in ("status", "events"):
            return self.told(scenario, path)
        file = PAGE / (path or "index.html")
        if file.parent != PAGE or file.suffix not in TYPES or not file.is_file():
            return self.answer(404, "text/plain", "no such file")
        return self.answer(200, TYPES[file.suffix], file.read_text(encoding="utf-8"))

    def answer(self, status, kind, text):
        body = text.encode()
        self.begin(status, kind, ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def begin(self, status, kind, *more):
        self.send_response(status)
        headers = [
            ("Content-Type", kind),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
        ]
        for name, value in [*headers, *more]:
            self.send_header(name, value)
        self.end_headers()

    def told(self, scenario, path):
        if scenario == "token" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, "application/json", json.dumps({"error": "say who you are: Authorization: Bearer TOKEN"}))
        if path == "status":
            return self.answer(200, "application/json", json.dumps(self.server.mock.report(scenario, 0)))
        self.begin(200, "text/event-stream")
        try:
            self.stream(scenario)
        except (BrokenPipeError, ConnectionResetError):
            return None

    def stream(self, scenario):
        mock, tick = self.server.mock, 0
        while not mock.ended.is_set():
            if scenario == "old" and tick == OLD_AFTER and not mock.speaks.wait(0.1):
                continue
            self.wfile.write(f"data: {json.dumps(mock.report(scenario, tick))}\n\n".encode())
            self.wfile.flush()
            if scenario == "failed" and tick == FAILS_AFTER:
                return
            tick += 1
            mock.ended.wait(mock.every)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9199)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between reports")
    given = parser.parse_args()
    with Mock(given.port, given.every) as mock:
        print("\n".join(f"{mock.at}/{name}/" for name in SCENARIOS), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
