"""Drives a headless Chromium over the DevTools protocol: enough to test a page, of the mock or of a real job.

with Browser() as browser:
    page = browser.open("http://127.0.0.1:9191/")
    page.until("document.body.dataset.known !== undefined")
    page.picture("page.png")
    assert page.errors == []
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")
DEADLINE_S = 20.0
POLL_S = 0.05


class Failed(AssertionError):
    """Something did not come to be, or the page threw."""


def executable():
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        raise Failed(f"no browser: none of {', '.join(NAMES)}, and CHROMIUM is not set")
    return found


class Browser:
    """A browser of its own with a temporary profile. Ends only what it has started."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="page-test-")
        command = [
            executable(),
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={self.profile}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-backgrounding-occluded-windows",
            "--disable-renderer-backgrounding",
            "--no-default-browser-check",
            "--remote-allow-origins=*",
            "--hide-scrollbars",
            "about:blank",
        ]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        # A group of its own, so that its children end with it.
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            self.wire = Wire(self.address())
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def address(self):
        """The browser writes its port and path into its profile once it listens."""
        file = Path(self.profile) / "DevToolsActivePort"
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"the browser ended with {self.process.returncode}")
            lines = file.read_text().split() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(POLL_S)
        raise Failed("the browser does not say where it listens")

    def open(self, url, width=1280, height=900, dark=False):
        # A page in a window that another one covers is hidden, and shows nothing.
        target = self.wire.call("Target.createTarget", {"url": "about:blank", "newWindow": True})["targetId"]
        session = self.wire.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self.wire, target, session, url, (width, height), dark)

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        shutil.rmtree(self.profile, ignore_errors=True)


class Wire:
    """Calls and their answers, one call at a time, of whichever thread; events go to who listens for their session."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=DEADLINE_S)
        self.number = 0
        self.listeners = {}
        self.lock = threading.Lock()

    def call(self, method, params=None, session=None):
        with self.lock:
            return self.ask(method, params, session)

    def ask(self, method, params, session):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params or {}}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("id") == number:
                if "error" in told:
                    raise Failed(f"{method}: {told['error']['message']}")
                return told["result"]
            self.heard(told)

    def heard(self, told):
        listener = self.listeners.get(told.get("sessionId"))
        if listener and "method" in told:
            listener(told["method"], told["params"])


class Page:
    """A page that is open. `errors` are what its console and the network have complained of, `requests` what it has asked for."""

    def __init__(self, wire, target, session, url, size, dark):
        self.wire, self.target, self.session = wire, target, session
        self.errors, self.requests, self.open = [], [], True
        wire.listeners[session] = self.heard
        for domain in ("Runtime", "Log", "Network", "Page", "Accessibility"):
            self.call(f"{domain}.enable")
        self.size(*size)
        self.theme(dark)
        told = self.call("Page.navigate", {"url": url})
        if "errorText" in told:
            raise Failed(f"{url}: {told['errorText']}")
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, params=None):
        return self.wire.call(method, params, self.session)

    def heard(self, method, params):
        if method == "Runtime.exceptionThrown":
            found = params["exceptionDetails"]
            self.errors.append(found.get("exception", {}).get("description") or found["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.errors.append(f"a request failed: {params['errorText']}")

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False})

    def theme(self, dark, still=True):
        """Light or dark, as the system would say; `still` for no motion."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"})
        self.call("Emulation.setEmulatedMedia", {"features": features})

    def evaluate(self, script):
        """The value of an expression; promises are awaited."""
        told = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in told:
            found = told["exceptionDetails"]
            raise Failed(f"{script}: {found.get('exception', {}).get('description', found['text'])}")
        return told["result"].get("value")

    def until(self, script, deadline_s=DEADLINE_S):
        """Waits until an expression holds, and returns it."""
        deadline = time.monotonic() + deadline_s
        while True:
            found = self.evaluate(script)
            if found:
                return found
            if time.monotonic() > deadline:
                raise Failed(f"not so within {deadline_s:.0f} s: {script}; errors: {self.errors}")
            time.sleep(POLL_S)

    def text(self, selector):
        """What an element shows, without what is hidden in it. What is too far away to be laid out has no `innerText`."""
        shown = "((one) => (one?.checkVisibility() ? one.innerText || one.textContent : null))"
        return self.evaluate(f"{shown}(document.querySelector({json.dumps(selector)}))")

    def press(self, key, text=None, shift=False):
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        params = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 8 if shift else 0}
        text = "\r" if key == "Enter" else key if text is None and len(key) == 1 else text
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **params, **({"text": text} if text else {})})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **params})

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def click(self, selector):
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{ block: 'center', behavior: 'instant' }});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def tree(self):
        """The accessibility tree, without what is ignored: (role, name) of each node."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        value = lambda node, field: node.get(field, {}).get("value", "")
        return [(value(node, "role"), value(node, "name")) for node in nodes if not node.get("ignored")]

    def picture(self, file, whole=True):
        """A screenshot, of the whole page or of what is in the window."""
        params = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            content = self.call("Page.getLayoutMetrics")["cssContentSize"]
            params["clip"] = {"x": 0, "y": 0, "width": content["width"], "height": content["height"], "scale": 1}
        Path(file).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", params)["data"]))

    def close(self):
        if not self.open:
            return
        self.open = False
        self.wire.call("Target.closeTarget", {"targetId": self.target})
        self.wire.listeners.pop(self.session, None)
