"""Count in this process: what programs and integrations call."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace import native
from giltrace.collectors.gil import GilCollector, start_here
from giltrace.errors import GiltraceError, OutputError, TargetError

if TYPE_CHECKING:
    from giltrace.metrics.export.listen import Listen
    from giltrace.metrics.ledger import Ledger
    from giltrace.metrics.totals import Totals

#: The folder that the processes of one service share, so that each of them can tell of all.
FOLDER = "GILTRACE_METRICS_DIR"
#: That of `prometheus_client` for the same; a folder in it will do.
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"

log = logging.getLogger("giltrace.metrics")

_lock = threading.RLock()
_folder: Path | None = None
_ledger: Ledger | None = None
_counts = False


def shared_folder() -> Path | None:
    """The folder that the environment names for all processes of this service; None if it names none."""
    if path := os.environ.get(FOLDER):
        return Path(path)
    if path := os.environ.get(_MULTIPROCESS):
        return Path(path, "giltrace")
    return None


def start(folder: str | os.PathLike[str] | None = None) -> None:
    """Let this process count from now on, and those that it forks; one that counts already goes on.

    Its counters are in `folder`, which the processes of a service share: else the one that ``GILTRACE_METRICS_DIR`` or
    ``PROMETHEUS_MULTIPROC_DIR`` names, else a temporary one for this process and what it forks. Costs 20 to 75 ns
    for each release and acquire of the GIL, and 64 KiB. Raises `TargetError` where that is not possible, `OutputError`
    if the folder cannot be written.
    """
    global _counts
    with _lock:
        if _counts:
            return
        if "GILTRACE_COUNT" in os.environ and "GILTRACE_OUT" in os.environ:
            # Under `giltrace metrics -- ...`, whose folder has it all.
            _use(Path(os.environ["GILTRACE_OUT"]))
            _counts = True
            return
        GilCollector().refuse()
        here = _use(Path(folder) if folder is not None else shared_folder() or _folder or temporary_folder())
        start_here(here, native.counting())
        _counts = True


def stop() -> None:
    """Count no more in this process. What was counted can still be read."""
    global _counts
    with _lock:
        if _counts and "GILTRACE_COUNT" not in os.environ:
            native.stop()
        _counts = False


def read() -> Totals:
    """Return what was counted, by all processes that share the folder, those that have ended too.

    Raises `TargetError` if nothing counts here, `RecordingError` or `OutputError` if the folder cannot be read.
    """
    try:
        return ledger().update()
    except OSError as error:
        raise OutputError(f"cannot keep the sums in {_folder}: {error.strerror}", "see who may write there") from None


class Quiet:
    """Reads as `read` does for those whom that must not fail: what is wrong goes to the log, each once."""

    def __init__(self) -> None:
        self._told = set[str]()

    def __call__(self) -> Totals | None:
        """What was counted; None if that cannot be read."""
        try:
            totals = read()
        except GiltraceError as error:
            self._tell(f"no GIL metrics: {error}")
            return None
        for why in totals.refused:
            self._tell(f"no GIL metrics of a process: {why}")
        return totals

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning(text)


def ledger() -> Ledger:
    """The sums of this process's folder, or of the one that the environment names. Raises `TargetError`."""
    global _ledger
    with _lock:
        if _ledger is None:
            from giltrace.metrics.ledger import Ledger
            from giltrace.metrics.page import Pages

            folder = _folder or shared_folder()
            if folder is None:
                raise TargetError("nothing counts in this process", "call giltrace.metrics.start() first")
            here = _use(folder)
            _ledger = Ledger(Pages(here), here)
        return _ledger


def serve(address: str = "127.0.0.1:9464") -> Listen:
    """Serve Prometheus at `address` (``unix:/path`` too), by a thread of this process, until the result is closed.

    Its children do not. Raises `OutputError` if it cannot listen there, `UsageError` without `prometheus_client`.
    """
    from giltrace.metrics.export.listen import Address, Listen

    server = Listen(Address.of(address))
    sums = ledger()
    server.begin(sums.update, sums.update())
    os.register_at_fork(after_in_child=server.leave)
    return server


def _use(folder: Path) -> Path:
    """Have the folder, made if it is not there, as that of this process."""
    global _folder, _ledger
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {folder}: {error.strerror}", f"name a folder that can be written by {FOLDER}"
        ) from None
    if folder != _folder:
        _folder, _ledger = folder, None
    return folder


def temporary_folder() -> Path:
    """Make a folder that goes with this process."""
    from giltrace.launch.count_folder import remove as remove_folder

    folder, owner = Path(tempfile.mkdtemp(prefix="giltrace-metrics-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                remove_folder(folder)

    atexit.register(remove)
    return folder


def _after_fork() -> None:
    """Another thread may have had the locks; the ledger's descriptors are the parent's too."""
    global _lock, _ledger
    _lock, _ledger = threading.RLock(), None


os.register_at_fork(after_in_child=_after_fork)
