"""Tests the page in a headless Chromium against made-up reports.

    pip install -r requirements.txt
    python3 test_page.py [NAME...] [--pictures FOLDER]

Prints what was checked; ends with 1 if anything was not so.
"""

import argparse
import json
import statistics
import sys
import time
import traceback
from pathlib import Path

from browser import Browser
from mock import PAGE, TOKEN, Mock
from probes import CONTRAST, NONSENSE, PLACED

EVERY_S = 0.25
MOST_BYTES = 120_000
MOST_MS = 50
ROLES = {"button", "textbox", "searchbox", "link", "checkbox", "combobox", "meter", "application", "DisclosureTriangle", "region", "img"}

#: Function, what is given, what is said.
SAID = [
    ("short", 0, "0"),
    ("short", 7.25, "7.3"),
    ("short", 999, "999"),
    ("short", 999.7, "1.0k"),
    ("short", 12_345, "12.3k"),
    ("short", 4_560_000, "4.6M"),
    ("short", None, "–"),
    ("count", 1_234_567, "1,234,567"),
    ("share", 0, "0 %"),
    ("share", 0.034, "3.4 %"),
    ("share", 1, "100 %"),
    ("share", 0.0001, "<0.1 %"),
    ("duration", 0, "0 ms"),
    ("duration", 850, "850 ms"),
    ("duration", 999.6, "1.0 s"),
    ("duration", 59_990, "1 min"),
    ("duration", 312_000, "5 min 12 s"),
    ("duration", 11_100_000, "3 h 5 min"),
    ("duration", 187_200_000, "2 d 4 h"),
    ("duration", None, "–"),
    ("bytes", 512, "512 B"),
    ("bytes", 3_912_000_000, "3.9 GB"),
    ("rate", 4200, "4.2k/s"),
    ("ru", None, "–"),
    ("cores", 1, "1.00 core"),
    ("words", "caught-up", "caught up"),
    ("bounds", "20" + 30 * "0" + "-3A" + 30 * "0", "20-3A"),
    ("bounds", "-1000" + 28 * "0", "-10"),
    ("bounds", "3F" + 30 * "F" + "-FF", "3F" + 30 * "F" + "-FF"),
    ("bounds", "orders-2000", "orders-2000"),
    ("brief", "feed range -10" + 30 * "0" + " of source a-2000; epoch 1790000000000", "feed range -10 of source a-2000; epoch 1790000000000"),
]


class Test:
    """One open page and what is checked of it."""

    def __init__(self, mock, browser, pictures):
        self.mock, self.browser, self.pictures, self.checked = mock, browser, pictures, 0

    def open(self, scenario, **more):
        self.page = self.browser.open(f"{self.mock.at}/{scenario}/", **more)
        return self.page

    def shown(self, scenario, reports=3, **more):
        page = self.open(scenario, **more)
        page.until(f"window.tidefeed?.updates.length >= {reports}")
        return page

    def so(self, what, found=True):
        assert found, what
        self.checked += 1

    def same(self, what, found, wanted):
        self.so(f"{what}: {found!r} instead of {wanted!r}", found == wanted)

    def says(self, selector, *wanted):
        found = self.page.text(selector)
        for text in wanted:
            self.so(f"{selector} says {found!r}, without {text!r}", text in (found or ""))

    def count(self, selector):
        return self.page.evaluate(f"document.querySelectorAll({selector!r}).length")

    def column(self, table, name):
        """The texts of a column of the table with this caption."""
        return self.page.evaluate(
            f"(() => {{ const t = [...document.querySelectorAll('table')].find((t) => t.caption.textContent === {table!r});"
            f" const at = [...t.tHead.rows[0].cells].findIndex((c) => c.textContent === {name!r});"
            " return [...t.tBodies[0].rows].map((row) => row.cells[at].textContent); })()"
        )

    def figure(self, name):
        return self.page.evaluate(f"[...document.querySelectorAll('.figure')].find((f) => f.firstChild.textContent === {name!r}).innerText")

    def clean(self, allowed=()):
        """No complaints, no requests elsewhere, no nonsense."""
        page = self.page
        errors = [one for one in page.errors if not any(part in one for part in allowed)]
        self.same("errors", errors, [])
        self.same("requests elsewhere", [one for one in page.requests if not one.startswith((self.mock.at, "data:,"))], [])
        self.same("nonsense", page.evaluate(NONSENSE), [])
        self.same("parts that failed", page.evaluate("tidefeed.failures"), [])

    def accessible(self):
        nameless = [role for role, name in self.page.tree() if role in ROLES and not name.strip()]
        self.same("elements without a name", nameless, [])

    def contrast(self):
        for dark in (False, True):
            self.page.theme(dark)
            self.page.until(f"document.documentElement.dataset.theme === '{'dark' if dark else 'light'}'")
            found = self.page.evaluate(CONTRAST)
            self.so("texts are seen", found["seen"] > 10)
            self.same(f"poor contrast, dark {dark}", found["poor"], [])

    def fits(self):
        self.so("it is wider than the window", self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    def picture(self, name):
        if self.pictures:
            self.page.picture(self.pictures / f"{name}.png")


def test_size(test):
    files = [file for file in PAGE.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    print(f"    {size} bytes in {len(files)} files")
    test.so("it is small", size < MOST_BYTES)


def test_format(test):
    page = test.open("empty")
    for name, given, wanted in SAID:
        found = page.evaluate(f"import('./format.js').then((format) => format.{name}({json.dumps(given)}))")
        test.same(f"{name}({given})", found, wanted)


def test_stream(test):
    """Events are the same however the stream is cut."""
    page = test.open("empty")
    text = 'data: {"a":1}\n\n: still here\n\ndata: {"b":\r\ndata: 2}\r\n\r\nevent: x\ndata:3\n\ndata: cut off'
    cut = (
        f"(size) => {{ const found = []; const take = events((data) => found.push(data)); const text = {json.dumps(text)};"
        " for (let at = 0; at < text.length; at += size) take(text.slice(at, at + size)); return found; }"
    )
    found = page.evaluate(f"import('./feed.js').then(({{ events }}) => [1, 2, 3, 5, 7, 1000].map({cut}))")
    for one in found:
        test.same("events", one, ['{"a":1}', '{"b":\n2}', "3"])


def test_placing(test):
    page = test.open("empty")
    test.same("wrong", page.evaluate(PLACED), [])


def test_healthy(test):
    test.shown("healthy")
    test.says("#job-name", "flight-delays")
    test.says("#state", "running")
    test.says("#generation", "12")
    test.says("#size", "2 processes, 4 workers")
    test.says("#uptime", "2 h 3 min")
    test.says("#banner", "Nothing holds it", "running; nothing holds it")
    test.same("level", test.page.evaluate("document.querySelector('#banner').dataset.level"), "ok")
    test.so("causes are hidden", test.page.evaluate("document.querySelector('#causes').hidden"))
    for name, wanted in [
        ("Records in", "/s"),
        ("Behind the sources", "ms"),
        ("Throttled", "0 %"),
        ("Dead letters", "0"),
        ("Since the last commit", "310 ms"),
        ("Read", "RU/s"),
    ]:
        test.so(f"{name} has no {wanted}", wanted in test.figure(name))
    test.so("a line is drawn", test.page.evaluate("document.querySelector('.spark path:last-child').getAttribute('d').startsWith('M')"))
    test.says("#bottleneck", "Reduce: delay by airport and hour of the day")
    test.so("it is marked", "bottleneck" in test.page.evaluate("document.querySelector('[data-mark] .mark').textContent"))
    test.same("boxes", test.count(".node"), 15)
    test.same("the busiest first", test.column("Operators", "Operator")[0], "Reduce: delay by airport and hour of the day")
    test.same("ranges", test.count("#source-list article:first-child tbody tr"), 8)
    test.same("states", set(test.column("Feed ranges of flights", "State")), {"caught up"})
    test.says("#sink-list", "10.0k RU/s", "no budget is set", "4 physical partitions")
    test.so("a bar for each epoch", test.count(".epoch") == 60)
    test.says("#epochs-said", "3 in flight", "p99 340 ms")
    test.says("#checkpoint-facts", "az://checkpoints/flight-delays", "17,204", "3.9 GB", "61 ms")
    test.same("processes", test.column("Processes", "State"), ["running", "running"])
    test.clean()
    test.accessible()
    test.contrast()
    for width in (360, 768, 1280, 2560):
        test.page.size(width, 900)
        test.fits()
        test.picture(f"healthy-{width}")


def test_throttled(test):
    test.shown("throttled")
    test.says("#banner", "Stalled by: sink", "which partition 2 throttles")
    test.same("level", test.page.evaluate("document.querySelector('#banner').dataset.level"), "bad")
    test.so("the title says it", test.page.evaluate("document.title").startswith("⚠"))
    test.page.click("#causes summary")
    test.says("#cause-list", "429 from partition 2", "commit", "nothing moved for 2.1 s", "1790000012000")
    test.so("throttled", "32 %" in test.figure("Throttled"))
    test.so("dead letters", "\n3" in test.figure("Dead letters"))
    test.page.click("#sink-list article:first-child summary")
    test.page.until("document.querySelector('#sink-list details[open] tbody tr')")
    test.same("the worst partition first", test.column("Physical partitions of delays", "Throttled")[0], "82 %")
    test.so(
        "the graph says what is queued",
        test.page.evaluate(
            "[...document.querySelectorAll('.trouble')].some((t) => t.textContent.includes('48.2k queued') && t.textContent.includes('12.4 s lag'))"
        ),
    )
    test.same(
        "the culprit is marked",
        test.page.evaluate("[...document.querySelectorAll('[data-holds]')].map((g) => g.querySelector('.mark').textContent)"),
        ["▼ holds the job"],
    )
    test.same("the worst range first", test.column("Feed ranges of flights", "State")[0], "backpressure")
    test.says("#epochs-said", "20 in flight")
    test.so("those in flight are open", test.count(".epoch [data-open]") == 20)
    test.same("what is said aloud", test.page.evaluate("document.querySelector('#said').textContent"), test.page.text("#sentence"))
    test.clean()
    test.contrast()
    test.picture("throttled-dark")


def test_stalled(test):
    test.shown("stalled")
    test.says("#banner", "Stalled by: reader")
    test.same("the failing one first", test.column("Feed ranges of flights", "State")[0], "failing")
    test.so("its trouble", "connection refused" in test.column("Feed ranges of flights", "Trouble")[0])
    test.same("it has not caught up", test.column("Feed ranges of flights", "Behind")[0], "–")
    test.so("catching up", "catching up" in test.figure("Behind the sources") and "812k changes left" in test.figure("Behind the sources"))
    test.says("#source-list", "2 decode errors · 2 dead letters")
    test.so("dead letters of sources count", "\n2" in test.figure("Dead letters"))
    test.says("#sink-list article:first-child", "6 requests")
    routes = "[...document.querySelectorAll('#sink-list article:last-child dl div')].find((one) => one.firstChild.textContent === 'In flight')"
    test.same("requests that nobody counts", test.page.evaluate(f"{routes}.lastChild.textContent"), "–")
    test.so("and why", "does not count" in test.page.evaluate(f"{routes}.lastChild.title"))
    test.page.evaluate("document.querySelector('#source-list thead th:nth-child(4) button').click()")
    rates = test.column("Feed ranges of flights", "Records")
    test.same("sorted by records", rates[-1], "0/s")
    test.clean()
    test.contrast()


def test_resume(test):
    test.shown("resume")
    test.says("#state", "resuming")
    test.says("#banner", "resuming: the checkpoint is being loaded")
    test.same("level", test.page.evaluate("document.querySelector('#banner').dataset.level"), "busy")
    test.so("no epoch", "–" in test.figure("Oldest uncommitted epoch"))
    test.says("#epochs-said", "No epoch")
    test.clean()
    test.contrast()


def test_dead_peer(test):
    test.shown("dead-peer")
    test.says("#banner", "Stalled by: silent", "process 1 at 10.0.0.5:2101 says nothing")
    test.same("they do not answer", test.column("Processes", "State"), ["running", "no answer", "no answer", "not told"])
    test.same("its last figures", test.column("Processes", "Memory")[1], "421 MB")
    last = "[...document.querySelectorAll('#process-list tbody tr[data-last] > :nth-child(6)')]"
    test.same("they say so", test.page.evaluate(f"{last}.map((td) => td.title)"), ["the last that it told"] + ["it has not told"] * 2)
    test.so("they are grey", test.page.evaluate(f"{last}.every((td) => getComputedStyle(td).filter === 'grayscale(1)')"))
    test.same("nothing is made up", test.column("Processes", "Memory")[2:], ["–", "–"])
    test.same("since when", test.column("Processes", "Heard")[1:3], ["12.4 s ago", "–"])
    test.says("#processes-empty", "process 3 figures are missing", "run one version everywhere")
    test.says("#size", "4 processes")
    test.same("ranges of all", set(test.column("Feed ranges of flights", "At")), {f"process {n % 2}, worker {n % 4}" for n in range(4)})
    test.clean()
    test.contrast()


def test_thousand(test):
    page = test.shown("thousand", reports=25)
    test.same("operators", page.evaluate("tidefeed.report.graph.operators.length"), 1000)
    updates = page.evaluate("tidefeed.updates.slice(1)")
    median = statistics.median(updates)
    print(
        f"    closed: {page.evaluate('tidefeed.updates[0]'):.0f} ms for the first report, then {median:.1f} ms at the median, {max(updates):.1f} ms at most"
    )
    test.so(f"a report takes {median} ms", median < MOST_MS)
    test.so("scopes are closed", test.count(".node") < 150)
    test.says("#bottleneck", "Join 7.22", "View 7")
    test.same(
        "it is marked on what holds it", page.evaluate("document.querySelector('[data-mark] .mark').textContent"), "▼ bottleneck inside"
    )
    test.same("operators shown", test.count("#operator-table tbody tr"), 50)
    test.same("ranges shown", test.count("#source-list tbody tr"), 100)
    test.same("the throttled first", test.column("Feed ranges of flights", "State")[:2], ["throttled", "throttled"])
    page.click("#source-list .more")
    test.same("all ranges", test.count("#source-list tbody tr"), 400)
    page.click("#source-list .more")
    begun = page.evaluate("tidefeed.updates.length")
    took = page.evaluate(
        "(() => { const t = performance.now(); document.querySelector('#open-all').click(); return performance.now() - t; })()"
    )
    page.until(f"tidefeed.updates.length >= {begun + 20}")
    median = statistics.median(page.evaluate(f"tidefeed.updates.slice({begun + 1})"))
    print(f"    open: {took:.0f} ms to lay out {test.count('.node')} boxes, then {median:.1f} ms a report at the median")
    test.so(f"a report takes {median} ms with all scopes open", median < MOST_MS)
    test.so("all are drawn", test.count(".node") >= 1000)
    test.clean()
    test.picture("thousand-open")


def test_empty(test):
    page = test.shown("empty")
    test.says("#job-name", "a job without a name")
    test.says("#banner", "starting")
    for name in (
        "Records in",
        "Documents out",
        "Behind the sources",
        "Oldest uncommitted epoch",
        "Since the last commit",
        "Throttled",
        "Dead letters",
    ):
        test.so(f"{name} is a dash", "–" in test.figure(name))
    dashes = "[...document.querySelectorAll('[data-unknown]')]"
    test.so("dashes say why", page.evaluate(f"{dashes}.length > 10 && {dashes}.every((one) => one.title)"))
    for part, text in [
        ("#graph-empty", "No operators"),
        ("#sources-empty", "No source"),
        ("#sinks-empty", "No sink"),
        ("#processes-empty", "No process"),
    ]:
        test.says(part, text)
    test.clean()
    test.accessible()
    test.contrast()
    test.picture("empty")


def test_markup(test):
    page = test.shown("markup")
    for part in ("#job-name", "#sentence", "#source-list", "#sink-list", "#checkpoint-facts", "#process-list", "#operator-table"):
        test.says(part, "<img src=x onerror=")
    page.evaluate("document.querySelector('#operator-table tbody button').click()")
    test.says("#details", "<img src=x onerror=")
    test.same("images", test.count("img"), 0)
    test.same("nothing has run", page.evaluate("window.hit ?? null"), None)
    test.clean()
    page.size(360, 800)
    test.fits()


def test_token(test):
    page = test.open("token")
    page.until("!document.querySelector('#door').hidden")
    test.so("nothing is shown", not page.evaluate("document.querySelector('.shown').checkVisibility()"))
    test.same("the field has the focus", page.evaluate("document.activeElement.id"), "token")
    test.contrast()

    def enter(text):
        page.call("Input.insertText", {"text": text})
        page.press("Enter")

    enter("wrong")
    page.until("document.querySelector('#door-said').textContent !== ''")
    test.says("#door-said", "does not know this token")
    enter(TOKEN)
    page.until("tidefeed.updates.length >= 2")
    test.so("the form is gone", page.evaluate("document.querySelector('#door').hidden"))
    test.says("#banner", "nothing holds it")
    test.so("it is in no address", not any("sesame" in one for one in [*page.requests, page.evaluate("location.href")]))
    test.so("it is in this tab only", "sesame" not in page.evaluate("JSON.stringify(localStorage) + document.cookie"))
    page.call("Page.reload")
    page.until("window.tidefeed?.updates.length >= 1")
    test.clean(allowed=["401"])


def test_old(test):
    page = test.shown("old", reports=2)
    test.so("it is not old yet", page.evaluate("document.querySelector('#old').hidden"))
    page.until("!document.querySelector('#old').hidden", 9)
    test.says("#old", "No word from the job for 5.0 s")
    test.says("#old-said", "What is shown is old")
    test.so("values are grey", page.evaluate("getComputedStyle(document.querySelector('.shown')).filter") == "grayscale(1)")
    test.picture("old")
    test.mock.speaks.set()
    page.until("document.querySelector('#old').hidden")
    test.so("values are not grey", page.evaluate("getComputedStyle(document.querySelector('.shown')).filter") == "none")
    test.clean()


def test_failed(test):
    """The last report says how it has ended, and stays, though nobody answers any more."""
    page = test.open("failed")
    page.until("document.querySelector('#state').textContent === 'ended'")
    test.mock.__exit__()
    for seconds in (0, 6):
        page.until(f"document.body.hasAttribute('data-ended') && performance.now() > {1000 * seconds}")
        test.says("#old", "The job ended", "ago")
        test.says("#verdict", "The run has failed and ended")
        test.says("#sentence", "sink delays (exit code 9, its log says why)")
        test.same("level", page.evaluate("document.querySelector('#banner').dataset.level"), "bad")
        test.so("the last figures stay", test.count("#sink-list article") > 0 and "–" not in test.figure("Records in"))
        greys = "getComputedStyle(document.querySelector('.shown > {}')).filter"
        test.same("the banner is not grey", page.evaluate(greys.format("#banner")), "none")
        test.same("the rest is", page.evaluate(greys.format("#graph-part")), "grayscale(1)")
    test.picture("failed")
    test.contrast()
    test.clean(allowed=["ERR_", "Failed to fetch", "network error"])


def test_ended(test):
    """The job goes and comes back at the same place; the page does so too."""
    port = test.mock.server.server_port
    page = test.shown("healthy")
    test.mock.__exit__()
    page.until("tidefeed.updates.length > 0 && document.body.hasAttribute('data-old')", 12)
    test.says("#old", "No word from the job")
    with Mock(port, EVERY_S):
        seen = page.evaluate("tidefeed.updates.length")
        page.until(f"tidefeed.updates.length > {seen} && !document.body.hasAttribute('data-old')", 20)
        test.clean(allowed=["ERR_", "Failed to fetch", "network error"])


def test_theme(test):
    page = test.shown("healthy", dark=True)
    theme = "document.documentElement.dataset.theme"
    test.same("as the system says", page.evaluate(theme), "dark")
    page.click("#theme")
    test.same("as chosen", page.evaluate(theme), "light")
    page.call("Page.reload")
    page.until("window.tidefeed?.updates.length >= 1")
    test.same("the choice is kept", page.evaluate(theme), "light")
    page.evaluate("localStorage.clear()")
    test.clean()


def test_graph(test):
    page = test.shown("healthy", height=1400)
    at = lambda: page.evaluate("document.querySelector('#graph svg > g').getAttribute('transform')")
    page.evaluate("document.querySelector('#graph').focus()")
    for key in ("+", "-", "ArrowLeft", "ArrowDown", "0"):
        before = at()
        page.press(key)
        test.so(f"{key} moves it", at() != before)
    page.press("n")
    test.so("n chooses", test.count(".node[data-chosen]") == 1)
    test.says("#details h3", "flights")
    page.press("p")
    page.press("Escape")
    test.same("Escape lets go", test.count(".node[data-chosen]"), 0)
    page.evaluate("(() => { const s = document.querySelector('#search'); s.value = 'least'; s.dispatchEvent(new Event('input')); })()")
    test.says("#details", "Reduce: least", "in Routes", "7.1 MB", "Feedback")
    test.says("#search-found", "1 of 1")
    page.evaluate(
        "(() => { const s = document.querySelector('#search'); s.value = 'Routes'; s.dispatchEvent(new Event('input')); document.querySelector('#graph').focus(); })()"
    )
    page.press("Enter")
    test.same("the scope is closed", test.count(".node"), 11)
    page.evaluate("[...document.querySelectorAll('#operator-table button.link')].find((b) => b.textContent === 'Feedback').click()")
    test.same("it is open again", test.count(".node"), 15)
    test.says("#details h3", "Feedback")
    box = page.evaluate("(() => { const b = document.querySelector('#graph').getBoundingClientRect(); return [b.x + 30, b.y + 30]; })()")
    before = at()
    page.mouse("mousePressed", *box, button="left", clickCount=1)
    page.mouse("mouseMoved", box[0] + 50, box[1] + 20, button="left", buttons=1)
    page.mouse("mouseReleased", box[0] + 50, box[1] + 20, button="left", clickCount=1)
    test.so("dragging moves it", at() != before)
    test.same("and lets the choice be", test.count(".node[data-chosen]"), 1)
    before = at()
    page.mouse("mouseWheel", *box, deltaX=0, deltaY=-120, modifiers=2)
    page.until(f"document.querySelector('#graph svg > g').getAttribute('transform') !== {before!r}")
    test.same("drawn once", page.evaluate("document.querySelectorAll('#graph svg').length"), 1)
    test.clean()
    test.accessible()
    test.picture("chosen")


def test_keyboard(test):
    """Tab comes to everything, and shows where it is."""
    page = test.shown("throttled")
    where = """(() => { const e = document.activeElement; const s = getComputedStyle(e);
      return [e.id || e.closest('[id]')?.id, e.tagName, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]; })()"""
    visited = []
    for _ in range(160):
        page.press("Tab")
        found = page.evaluate(where)
        if found[1] == "BODY":
            break
        visited.append(found)
    names = [name for name, _, _ in visited]
    order = [
        "theme",
        "causes-title",
        "search",
        "open-all",
        "zoom-out",
        "graph",
        "operator-table",
        "source-list",
        "sink-list",
        "timeline",
        "process-list",
    ]
    test.so(f"Tab comes to {set(order) - set(names)}", set(order) <= set(names))
    test.same("in the order of the page", sorted(order, key=names.index), order)
    test.same("where it is is seen", [one for one in visited if not one[2]], [])
    test.same("headings", page.evaluate("document.querySelectorAll('h1').length"), 1)
    test.so("landmarks", page.evaluate("['header', 'main', 'aside'].every((tag) => document.querySelector(tag))"))


def test_held(test):
    """Rows keep their places while the pointer is among them."""
    page = test.shown("healthy")
    page.evaluate("document.querySelector('#source-list tbody').dispatchEvent(new PointerEvent('pointerenter'))")
    page.evaluate("document.querySelector('#source-list thead th:nth-child(3) button').click()")
    page.evaluate("document.querySelector('#source-list tbody').dispatchEvent(new PointerEvent('pointerenter'))")
    before = test.column("Feed ranges of flights", "Range")
    seen = page.evaluate("tidefeed.updates.length")
    page.until(f"tidefeed.updates.length > {seen + 8}")
    test.same("their places", test.column("Feed ranges of flights", "Range"), before)


TESTS = {name.removeprefix("test_"): test for name, test in list(globals().items()) if name.startswith("test_")}


def run(name, browser, pictures):
    begun = time.monotonic()
    print(f"{name} ...", flush=True)
    with Mock(every=EVERY_S) as mock:
        test = Test(mock, browser, pictures)
        try:
            TESTS[name](test)
        except Exception as error:
            print(f"  NOT SO: {error}")
            traceback.print_exc(limit=-2)
            return False
        finally:
            if hasattr(test, "page"):
                test.page.close()
    print(f"  {test.checked} checks, {time.monotonic() - begun:.1f} s", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TESTS], help="of tests; all by default")
    parser.add_argument("--pictures", type=Path, help="where to keep pictures of the page")
    given = parser.parse_args()
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        failed = [name for name in given.names or TESTS if not run(name, browser, given.pictures)]
    print(f"not so: {', '.join(failed)}" if failed else "all is so")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
