"""The main job, `flight-delays`, with its page open: as it runs, throttled, with a feed range that does not answer, and after a kill.

Each state is awaited and checked in the page; `--pictures` keeps what it looked like.
"""

from programs import KEY, Program
from scene import Scene

VIEWS = ("carrier_delays", "route_delays", "weather_delays", "airborne")
SINK = "route_delays"
SIZE = (1400, 1000)
#: The pictures show some time of the job.
SEEN_REPORTS, PICTURED_REPORTS = 4, 20
#: Writes a second. The job keeps up with it on one core.
RATE = 600
#: Of each physical partition of the throttled sink, RU/s: a fifth of what it needs.
LIMIT = 300


class MainJob(Scene):
    """The job at a server of its own, as its database has one name."""

    def fly(self):
        command = [self.stage.programs / "flight-delays", "--endpoint", self.emulator.at, "--checkpoint", self.folder / "checkpoint", "--rate", RATE]
        job = self.keep(Program(*command, COSMOS_KEY=KEY))
        job.at = job.says(r"the page of the job: (http://\S+?)/?$")
        return job

    def open_page(self, job, dark=False):
        self.at = job.at
        self.page = self.keep(self.browser.open(f"{job.at}/", *SIZE, dark=dark))
        self.flows()

    def lives(self):
        """Waits until the page has seen the job for a while."""
        reports = PICTURED_REPORTS if self.pictures else SEEN_REPORTS
        self.page.until(f"tidefeed.updates.length >= {reports}", 60)

    def theme_is(self, dark):
        light = self.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every((part) => part > 128)")
        self.same("the ground is light", light, not dark)
        self.same("the text is not", self.page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g)[0] > 128"), dark)


def main_job(scene):
    """Light, dark, throttled, stalled, killed and resumed."""
    scene.own_emulator("--partitions", 4)
    job = scene.fly()
    scene.open_page(job)
    runs(scene)
    throttled(scene)
    stalled(scene)
    resumed(scene, job)


main_job.scene = MainJob


def runs(scene):
    scene.lives()
    scene.flows()
    scene.same("sinks", sorted(scene.page.evaluate("[...document.querySelectorAll('.sink h3')].map((one) => one.textContent)")), sorted(VIEWS))
    ranges = scene.emulator.shown("flight-delays", "flights")
    scene.same("ranges", sorted(scene.column("Feed ranges of flights", "Range")), sorted(ranges.values()))
    scene.says("#generation", "1")
    scene.so("records come", not scene.figure("Records in").startswith("Records in\n\n0 "))
    scene.so("epochs are drawn", scene.count(".epoch") > 5)
    scene.so("operators are drawn", scene.count(".node") > 10)
    scene.theme_is(dark=False)
    scene.picture("light")
    scene.page.theme(True)
    scene.page.until("document.documentElement.dataset.theme === 'dark'")
    scene.theme_is(dark=True)
    scene.picture("dark")
    scene.page.theme(False)
    scene.page.until("document.documentElement.dataset.theme === 'light'")
    scene.fits()
    scene.clean()


def throttled(scene):
    """A container takes so little that its sink holds the job."""
    scene.emulator.limit("flight-delays", SINK, LIMIT)
    scene.names("sink", f"sink {SINK} has writes", "last answered 429", name=SINK)
    # A share is that of a second, and most requests are paced so that they pass.
    scene.page.until("tidefeed.report.sinks.some((one) => one.throttled_share > 0) && tidefeed.report.holds.culprit?.kind === 'sink'")
    scene.picture("throttled")
    throttled = scene.page.evaluate("tidefeed.report.sinks.filter((one) => one.throttled > 0 || one.throttled_share > 0).map((one) => one.name)")
    scene.so(f"no other is throttled: {throttled}", set(throttled) <= {SINK})
    scene.emulator.limit("flight-delays", SINK, None)
    scene.clears()


def stalled(scene):
    """A physical partition of the source does not answer."""
    frozen = {"operation": "change-feed", "database": "flight-delays", "container": "flights", "partition": 2, "action": "freeze"}
    named = scene.emulator.partitions("flight-delays", "flights")[2]
    scene.emulator.hurt(frozen)
    scene.names("reader", "does not answer", name="flights", range=named)
    scene.page.until("document.querySelector('#source-list tbody tr').textContent.includes('ago')")
    scene.picture("stalled")
    scene.emulator.heal(frozen)
    scene.clears()


def resumed(scene, job):
    """It is killed; a new start goes on from its checkpoint."""
    before = scene.page.evaluate("tidefeed.report.epochs.committed")
    job.kill()
    scene.page.until("!document.querySelector('#old').hidden", 15)
    scene.says("#old", "No word from the job")
    scene.page.close()
    scene.open_page(scene.fly())
    scene.says("#generation", "2")
    scene.so("it goes on after what was committed", scene.page.evaluate("tidefeed.report.epochs.committed") > before)
    scene.lives()
    scene.picture("resumed")
    scene.clean()
