"""A job with its page open, and what the page is to say of it."""

from contextlib import ExitStack

from browser import Failed
from programs import Emulator, Orders, Shop
from test_page import Test

NAMED_S = 15
CLEARED_S = 20


class Scene(Test):
    """A job, its load, and its page."""

    def __init__(self, name, stage, folder):
        super().__init__(self, stage.browser, stage.pictures)
        self.name, self.stage, self.folder, self.emulator = name, stage, folder, stage.emulator
        self.open_things = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open_things.close()

    def keep(self, thing):
        return self.open_things.enter_context(thing)

    def own_emulator(self, *options):
        self.emulator = self.keep(Emulator(self.stage.programs / "tidefeed-emulator", *options))

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
        self.so(f"the cause has its name: {found['shown']}", str(culprit.get("name") or "") in found["shown"])
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
        self.same(f"exit code, after {job.lines[-1:]}", job.ended(), code)
        self.page.until("document.querySelector('#state').textContent === 'ended' && document.body.hasAttribute('data-old')", NAMED_S)
        print(f"    {self.name}: {self.page.text('#verdict')}: {self.page.text('#sentence')}", flush=True)
        self.says("#verdict", "The run has failed")
        self.says("#sentence", "the run has failed", f"exit code {code}", *said)
        self.says("#old", "The job ended ")
        self.so("sinks are those before the end", self.count("#sink-list article") > 0)
        self.clean(allowed=["ERR_", "Failed to fetch", "network error"])

    def picture(self, name):
        """Keeps what is in the window, as it is and small."""
        if not self.pictures:
            return
        from PIL import Image

        file = self.pictures / f"{name}.webp"
        self.page.picture(file, whole=False)
        with Image.open(file) as image:
            image.convert("RGB").save(file, "webp", lossless=True, method=6)
