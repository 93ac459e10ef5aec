"""Take the pictures of the site: the Perfetto UI, as `giltrace view` opens it, with each sample of traces/.

    python -m docs.site.pictures [WORKLOAD]...

Needs Chromium with its driver, and the extra `docs`. Look at each picture before it is committed.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docs.site.gallery import SAMPLES
from docs.site.pages import DOCS
from tests.browser.chromium import browser

WIDTH, HEIGHT = 1400, 760
LARGEST = 150_000
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
    """Take the pictures of the named workloads, or of all that have a sample."""
    names = sys.argv[1:] or sorted(path.name.removesuffix(".giltrace.tar.gz") for path in SAMPLES.glob("*.tar.gz"))
    with tempfile.TemporaryDirectory(prefix="giltrace-pictures-") as work, browser(Path(work, "profile"), WIDTH, HEIGHT) as page:
        for name in names:
            with tarfile.open(SAMPLES / f"{name}.giltrace.tar.gz") as archive:
                archive.extractall(work, filter="data")
            with _viewed(Path(work, f"{name}.giltrace")) as address:
                picture = _compressed(_screenshot(page, address))
            if len(picture) > LARGEST:
                sys.exit(f"the picture of {name} has {len(picture)} bytes; {LARGEST} are allowed")
            (DOCS / "pictures" / f"{name}.png").write_bytes(picture)
            print(f"{len(picture):7} {name}")


@contextmanager
def _viewed(recording: Path) -> Iterator[str]:
    """Run `giltrace view` for the time of the block; yields the address that it prints."""
    command = [sys.executable, "-m", "giltrace", "view", str(recording), "--print-url"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)


def _screenshot(page: Any, address: str) -> bytes:
    from selenium.webdriver.support.ui import WebDriverWait

    # Another fragment alone would not load another trace.
    page.get("about:blank")
    page.get(address)
    page.set_script_timeout(60)
    WebDriverWait(page, 120).until(lambda driver: driver.execute_script(READY))
    page.execute_async_script(SETTLED)
    return bytes(page.get_screenshot_as_png())


def _compressed(png: bytes) -> bytes:
    """The picture in 128 colours, which is more than the UI uses in one view."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


if __name__ == "__main__":
    main()
