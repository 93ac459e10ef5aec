"""Take the pictures of the site: the Perfetto UI, as `giltrace view` opens it, with each sample of traces/.

    python -m docs.site.pictures [NAME]...

NAME is a workload; `tutorial`, whose program is recorded anew for its picture; or `report`, for the report's page.

Needs Chromium with its driver, and the extra `docs`. Look at each picture before it is committed.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docs.site.gallery import SAMPLES
from docs.site.pages import DOCS, ROOT
from tests.browser.chromium import browser
from traces.regenerate import unpack

WIDTH, HEIGHT = 1400, 760
LARGEST = 150_000
TUTORIAL = "tutorial"
REPORT = "report"
#: Of what the report's page is shown, and what is selected on it.
REPORTED, SELECTED = "convoy", "#t=0.25s..0.45s"
_PACKED = ".giltrace.tar.gz"
#: Where there is more to see than at the worst wait, which the command begins with: what is in sight, in seconds
#: from the start of the recording, with every process unfolded.
IN_SIGHT = {
    "fork_pool": (0.0, 1.2),
    "io_bound": (0.0, 0.5),
    "lock_contention": (0.0, 0.5),
    "multiprocess": (0.0, 0.12),
    "numpy_mix": (0.1, 0.35),
    "ping_pong": (0.03, 0.033),
    "single": (0.0, 0.16),
    "sqlite_threads": (0.0, 0.65),
    "subinterpreters": (0.0, 0.5),
    "switch_interval": (0.0, 2.0),
    "thread_pool_http": (0.0, 0.4),
}
UNFOLD = "window.app.commands.runCommand('dev.perfetto.ExpandTracksByRegex', arguments[0])"

#: Whether the trace is loaded and what `giltrace view` asked for is done.
READY = "return !!window.app?.trace && !window.app.isLoadingTrace && window.app.trace.workspace.pinnedTracks.length > 0"
#: Resolves once no query has been under way for a moment: tracks fetch their slices when they are first drawn.
SETTLED = """
const done = arguments[0], engine = window.app.trace.engine;
let quiet = 0;
const look = () => {
  quiet = engine.numRequestsPending ? 0 : quiet + 1;
  quiet > 60 ? done(true) : requestAnimationFrame(look);
};
look();
"""


def main() -> None:
    """Take the pictures of that name, or all."""
    samples = sorted(path.name.removesuffix(_PACKED) for path in SAMPLES.glob(f"*{_PACKED}"))
    with tempfile.TemporaryDirectory(prefix="giltrace-pictures-") as name:
        work = Path(name)
        names = sys.argv[1:] or [*samples, TUTORIAL, REPORT]
        # Before there is a browser, which would take the cores away from what is recorded.
        recordings = {name: _recording(name, work) for name in names}
        with browser(work / "profile", WIDTH, HEIGHT) as page:
            for name, recording in recordings.items():
                if name == REPORT:
                    picture = _compressed(_report(page, recording))
                else:
                    with _viewed(recording) as address:
                        picture = _compressed(_screenshot(page, address, _range(recording, name)))
                if len(picture) > LARGEST:
                    sys.exit(f"the picture of {name} has {len(picture)} bytes; {LARGEST} are allowed")
                (DOCS / "pictures" / f"{name}.png").write_bytes(picture)
                print(f"{len(picture):7} {name}")


def _recording(name: str, work: Path) -> Path:
    """What a picture is made of."""
    if name == TUTORIAL:
        return _recorded(work)
    return unpack(REPORTED, work / REPORT) if name == REPORT else unpack(name, work)


def _report(page: Any, recording: Path) -> bytes:
    """The report's page, with a part selected."""
    from selenium.webdriver.support.ui import WebDriverWait

    path = recording.with_name(f"{REPORTED}.html")
    command = [sys.executable, "-m", "giltrace", "report", str(recording), "--html", str(path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    page.get(path.as_uri() + SELECTED)
    WebDriverWait(page, 60).until(lambda driver: driver.find_elements("css selector", "#selected"))
    return bytes(page.get_screenshot_as_png())


def _recorded(work: Path) -> Path:
    """Record the tutorial's program as the tutorial does."""
    program = re.search(r"^```python\n(.*?)^```", (DOCS / f"{TUTORIAL}.md").read_text(encoding="utf-8"), re.M | re.S)
    assert program is not None
    (work / "primes.py").write_text(program[1])
    command = [sys.executable, "-m", "giltrace", "record", "--light", "-o", "slow", "primes.py", "threads", "2"]
    subprocess.run(command, cwd=work, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return work / "slow.giltrace"


@contextmanager
def _viewed(recording: Path) -> Iterator[str]:
    """Run `giltrace view` for the time of the block; yields the address that it prints."""
    command = [sys.executable, "-m", "giltrace", "view", str(recording), "--print-url"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            with urllib.request.urlopen(process.stdout.readline().strip(), timeout=60) as answer:
                yield str(answer.url)
        finally:
            process.send_signal(signal.SIGINT)


def _range(recording: Path, name: str) -> tuple[int, int] | None:
    """What is to be in sight instead of the worst wait, on the clock of the trace."""
    if name not in IN_SIGHT:
        return None
    begin = int(json.loads((recording / "meta.json").read_text(encoding="utf-8"))["start_ns"])
    start, end = (begin + round(seconds * 1e9) for seconds in IN_SIGHT[name])
    return start, end


def _screenshot(page: Any, address: str, in_sight: tuple[int, int] | None) -> bytes:
    from selenium.webdriver.support.ui import WebDriverWait

    # Another fragment alone would not load another trace.
    page.get("about:blank")
    if in_sight is not None:
        asked = re.sub(r"&(visStart|visEnd|ts|dur)=\d+", "", address)
        address = f"{asked}&visStart={in_sight[0]}&visEnd={in_sight[1]}"
    page.get(address)
    page.set_script_timeout(60)
    WebDriverWait(page, 120).until(lambda driver: driver.execute_script(READY))
    if in_sight is not None:
        page.execute_script(UNFOLD, r"\.py \d+$|^GIL( \d+)? \(pid")
    page.execute_async_script(SETTLED)
    return bytes(page.get_screenshot_as_png())


def _compressed(png: bytes) -> bytes:
    """The picture in 128 colours, which is more than the UI uses in one view."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        smaller, "PNG", optimize=True
    )
    return smaller.getvalue()


if __name__ == "__main__":
    main()
