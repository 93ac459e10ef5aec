"""The exact collector: the native tracer, preloaded into every process below the target."""

from __future__ import annotations

import contextlib
import os
import platform
import stat
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace import installation, native
from giltrace.collectors.base import Session
from giltrace.errors import TargetError
from giltrace.native.preloading import preload_path
from giltrace.recording.clock_file import append_pair
from giltrace.recording.collected import CollectorReport

if TYPE_CHECKING:
    from giltrace.recording.packing import Packer

#: How often the tracer's clock is compared with CLOCK_MONOTONIC.
PAIR_INTERVAL_NS = 250_000_000
#: How often it is looked for what can be packed, for how long at a time, and from which size (bytes) of a file on.
#: Who follows the recording (`recording.live`) has read a chunk so many seconds after its thread has left it.
PACK_INTERVAL_NS, PACK_NS, PACK_FROM = 1_000_000_000, 20_000_000, 4 << 20
PACK_AT_END_NS, PACK_WAIT_S = 10_000_000_000, 5.0

PT_INTERP = 3

#: Where rules of a flight recorder say from how many ticks on a wait or a hold is told of.
WAIT_LIMIT, HOLD_LIMIT = "GILTRACE_WAIT_LIMIT", "GILTRACE_HOLD_LIMIT"


_TRACED = "end the other trace first, or do not run it under `giltrace record`, nor with GILTRACE_COUNT"


class TracedAlready(TargetError):
    """This process has a tracer at work."""


def start_here(folder: Path, stacks: int, ring: int = 0, *, remedy: str = _TRACED) -> None:
    """Have the tracer begin in this process, as `native.start`.

    Raises `TracedAlready` if it is, with a `remedy` for that, and `TargetError` where it cannot be.
    """
    from giltrace.process.ways import find_ways

    refused = native.start(folder, stacks, find_ways(os.getpid(), 0), ring)
    if refused == 1:
        raise TracedAlready("this process is traced already", remedy)
    if refused:
        raise TargetError("the tracer could not start in this process", "see `giltrace doctor` for what is missing")


class GilCollector:
    """Preloads the tracer and keeps its clock compared with CLOCK_MONOTONIC.

    `depth` (0 to 128) is how many frames of a Python stack are recorded at each release, innermost first; deeper
    stacks are cut at their outer end and marked so. With `ring` (bytes) each process keeps its newest events only. If
    it `packs`, what threads have written is packed while they go on (`recording.packed`).
    """

    name = "gil"

    def __init__(self, depth: int = 128, ring: int = 0, *, packs: bool = False) -> None:
        self._depth = depth
        self._ring = ring
        self._packs = packs and not ring
        self._packer: Packer | None = None
        self._next_pack_ns = 0
        self._folder = Path()
        self._next_pair_ns = 0
        self._pid = 0
        self._program = ""

    def available(self, python: str | None) -> str | None:
        """See `Collector.available`."""
        try:
            self.refuse()
        except TargetError as error:
            return ": ".join(filter(None, (error.message, error.remedy)))
        return None

    def refuse(self) -> None:
        """Raise `TargetError` where no GIL can be traced here: for want of a library, or on a platform without one."""
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
            here = f"{sys.platform} {platform.machine()}"
            raise TargetError(
                f"exact capture is made for Linux on x86-64 and aarch64, not {here}", "use such a machine"
            )
        if not native.LIBRARY.exists():
            raise TargetError(installation.UNBUILT, installation.how_to_build())
        try:
            native.library()
        except OSError as error:
            raise TargetError(f"the tracer does not load here ({error})", installation.again()) from None

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """See `Collector.prepare`."""
        self._folder = folder
        env["LD_PRELOAD"] = ":".join(filter(None, (preload_path(), env.get("LD_PRELOAD"))))
        env["GILTRACE_OUT"] = str(folder.absolute())
        env["GILTRACE_RECORDER"] = str(os.getpid())
        env["GILTRACE_STACKS"] = str(self._depth)
        env["GILTRACE_RING"] = str(self._ring)
        # What counts alone would leave a recording without an event.
        if env.get("GILTRACE_COUNT") is not None:
            env["GILTRACE_COUNT"] = "too"

    def start(self, session: Session) -> None:
        """See `Collector.start`."""
        self._pid = session.pid
        self._compare_clocks()

    def _compare_clocks(self) -> None:
        append_pair(self._folder)
        self._next_pair_ns = time.monotonic_ns() + PAIR_INTERVAL_NS

    def poll(self) -> None:
        """See `Collector.poll`."""
        with contextlib.suppress(OSError):
            self._program = os.readlink(f"/proc/{self._pid}/exe")
        if time.monotonic_ns() >= self._next_pair_ns:
            self._compare_clocks()
        if self._packs and time.monotonic_ns() >= self._next_pack_ns:
            self._pack(PACK_NS, PACK_WAIT_S)

    def _pack(self, most_ns: int, wait: float) -> None:
        """Pack what threads have left for so long (s), for as long as that, and look again a while after."""
        begun = time.monotonic_ns()
        self._next_pack_ns = begun + PACK_INTERVAL_NS
        if self._packer is None:
            sizes = (path.stat().st_size for path in self._folder.glob("gil-*.bin"))
            if max(sizes, default=0) < PACK_FROM:
                return
            from giltrace.recording.packing import Packer

            self._packer = Packer(self._folder)
        self._packer.wait = wait
        while self._packer.step():
            if time.monotonic_ns() - begun > most_ns:
                self._next_pack_ns = begun
                return

    def stop(self) -> CollectorReport:
        """See `Collector.stop`."""
        self._compare_clocks()
        if self._packs:
            self._pack(PACK_AT_END_NS, 0)
        return self.report(self._folder)

    def report(self, folder: Path) -> CollectorReport:
        """Say what the finished recording in `folder` holds and what it cost."""
        # Only now: the target was started without numpy.
        from giltrace.collectors._gil_report import report

        return report(folder, lambda: _why_unseen(self._program))


def _why_unseen(program: str) -> str:
    """Why no interpreter was found below the target, which was last seen to run `program` ("" if it was not)."""
    with contextlib.suppress(OSError, struct.error):
        if os.stat(program).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return f"{program} is set-user-id: loaders preload nothing into it; `giltrace attach` as root reaches it"
        if _is_static(Path(program)):
            return f"{program} is statically linked: nothing can be preloaded into it"
    return (
        "no CPython was seen: preloading does not reach static and set-user-id programs, nor those whose environment "
        "was cleared; `giltrace attach PID` reaches one that runs"
    )


def _is_static(program: Path) -> bool:
    """Whether it is a 64-bit ELF file that asks for no dynamic loader."""
    with program.open("rb") as file:
        head = file.read(64)
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        kinds = [struct.unpack_from("<I", file.read(size))[0] for _ in range(count)]
    return head[:5] == b"\x7fELF\x02" and PT_INTERP not in kinds
