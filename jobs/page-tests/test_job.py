"""Tests the page of real jobs in a headless Chromium: what it says in situations that are brought about, and how it looks.

    pip install -r requirements.txt
    cargo build --profile quick --workspace --bins
    python3 test_job.py [NAME...] [--programs target/quick] [--pictures docs/pictures]

Prints what was checked; ends with 1 if anything was not so.
"""

import argparse
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from browser import Browser
from main_job import main_job
from programs import Emulator
from scene import Scene
from situations import SITUATIONS

#: The longest first, so that the others go on beside it.
TESTS = {"main_job": main_job, **SITUATIONS}
ROOT = Path(__file__).resolve().parents[2]


class Stage:
    """What the situations share."""

    def __init__(self, programs, browser, emulator, pictures):
        self.programs, self.browser, self.emulator, self.pictures = programs, browser, emulator, pictures


def run(name, stage, folder):
    begun = time.monotonic()
    (folder / name).mkdir()
    of_test = getattr(TESTS[name], "scene", Scene)
    with of_test(name.replace("_", "-"), stage, folder / name) as scene:
        try:
            TESTS[name](scene)
        except Exception as error:
            print(f"{name} NOT SO: {error}\n{traceback.format_exc(limit=-3)}", flush=True)
            return False
    print(f"{name}: {scene.checked} checks, {time.monotonic() - begun:.1f} s", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TESTS], help="of situations; all by default")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/quick", help="where shop, flight-delays and tidefeed-emulator are")
    parser.add_argument("--pictures", type=Path, help="where to keep pictures of the page")
    parser.add_argument("--at-once", type=int, default=3, help="situations at a time")
    given = parser.parse_args()
    names = given.names or list(TESTS)
    begun = time.monotonic()
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    with Browser() as browser, Emulator(given.programs / "tidefeed-emulator") as emulator, tempfile.TemporaryDirectory() as folder:
        stage = Stage(given.programs, browser, emulator, given.pictures)
        with ThreadPoolExecutor(given.at_once) as pool:
            went_well = list(pool.map(lambda name: run(name, stage, Path(folder)), names))
    failed = [name for name, well in zip(names, went_well) if not well]
    print(f"{time.monotonic() - begun:.1f} s")
    print(f"not so: {', '.join(failed)}" if failed else "all is so")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
