"""The exact collector: the native tracer, preloaded into every process below the target."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from giltrace import native
from giltrace.collectors.base import Session
from giltrace.recording import clock, gil, layout
from giltrace.timeline.model import CollectorReport

#: How often the tracer's clock is compared with CLOCK_MONOTONIC.
PAIR_INTERVAL_NS = 250_000_000


class GilCollector:
    """Preloads the tracer library and keeps its clock compared with CLOCK_MONOTONIC.

    `depth` (0 to 128) is how many frames of a Python stack are recorded at each release, innermost first; deeper
    stacks are cut at their outer end and marked so. With `ring` (bytes) each process keeps its newest events only.
    """

    name = "gil"

    def __init__(self, depth: int = 128, ring: int = 0) -> None:
        self._depth = depth
        self._ring = ring
        self._folder = Path()
        self._next_pair_ns = 0
        self._link: tempfile.TemporaryDirectory[str] | None = None

    def available(self, python: str | None) -> str | None:
        """See `Collector.available`."""
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
            return f"exact capture is made for Linux on x86-64 and aarch64, not {sys.platform} {platform.machine()}"
        if not native.LIBRARY.exists():
            return "the tracer library was not built: install a C compiler (cc), then install giltrace again"
        try:
            native.library()
        except OSError as error:
            return f"the tracer library does not load ({error}): install giltrace again on this machine"
        return None

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """See `Collector.prepare`."""
        self._folder = folder
        library = str(native.LIBRARY)
        if any(mark in library for mark in " :\t\n"):
            # The loader splits LD_PRELOAD there and knows no quotes.
            self._link = tempfile.TemporaryDirectory(prefix="giltrace-")
            library = os.path.join(self._link.name, native.LIBRARY.name)
            os.symlink(native.LIBRARY, library)
        env["LD_PRELOAD"] = ":".join(filter(None, (library, env.get("LD_PRELOAD"))))
        env["GILTRACE_OUT"] = str(folder.absolute())
        env["GILTRACE_RECORDER"] = str(os.getpid())
        env["GILTRACE_STACKS"] = str(self._depth)
        env["GILTRACE_RING"] = str(self._ring)

    def start(self, session: Session) -> None:
        """See `Collector.start`."""
        self._compare_clocks()

    def _compare_clocks(self) -> None:
        clock.append_pair(self._folder)
        self._next_pair_ns = time.monotonic_ns() + PAIR_INTERVAL_NS

    def poll(self) -> None:
        """See `Collector.poll`."""
        if time.monotonic_ns() >= self._next_pair_ns:
            self._compare_clocks()

    def stop(self) -> CollectorReport:
        """See `Collector.stop`."""
        self._compare_clocks()
        if self._link is not None:
            self._link.cleanup()
        return self.report(self._folder)

    def report(self, folder: Path) -> CollectorReport:
        """Say what the finished recording in `folder` holds and what it cost."""
        files = gil.open_files(folder)
        if not files:
            return CollectorReport(
                self.name,
                "no CPython process with a dynamic loader was seen: a static or set-user-id program, or one that "
                "clears its environment, cannot be preloaded",
            )
        pairs = sum(gil.count_records(file, layout.Kind.RELEASE) for file in files)
        each = native.pair_cost_ns()
        cost = f"{pairs} release+acquire pairs x {each:.0f} ns = {pairs * each / 1e6:.1f} ms"
        return CollectorReport(self.name, "ok", cost, gil.tick_clock(folder, files).error_ns)
