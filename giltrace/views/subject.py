"""What a person wants to look at: a recording with its trace, or a trace alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace.errors import UsageError
from giltrace.recording.folder import SUFFIX
from giltrace.recording.locate import locate
from giltrace.recording.meta import FILE
from giltrace.timeline.model import Timeline
from giltrace.views.trace_file import check_whole, thinned

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection

_TRACE = ".pftrace"
#: A trace of which it is known that it is larger takes, with its tables, more than the 4 GiB that there are.
_LARGEST = 1_400_000_000


@dataclass(frozen=True)
class Subject:
    """A recording (`folder`), a trace of it that is up to date (`trace`), or both."""

    title: str
    folder: Path | None
    trace: Path | None

    @classmethod
    def find(cls, name: Path) -> Subject:
        """Find what `name` names: a `.pftrace`, or a recording with or without its suffix.

        A trace that is older than the recording is not its trace. Raises `RecordingError` if there is nothing, or a
        trace alone that is none, or not all of one.
        """
        trace = name if name.suffix == _TRACE else name.with_name(name.name.removesuffix(SUFFIX) + _TRACE)
        # Where it may not be looked for, `locate` says so.
        if name.suffix == _TRACE and os.path.isfile(name):
            folder = name.with_suffix(SUFFIX)
            if _is_of(name, folder):
                return cls(name.stem, folder, name)
            check_whole(name)
            return cls(name.stem, None, name)
        folder = locate(name)
        return cls(folder.name.removesuffix(SUFFIX), folder, trace if _is_of(trace, folder) else None)

    @cached_property
    def timeline(self) -> Timeline | None:
        """The recording's timeline, of a long one with quiet holds added up, or a part; None for a trace alone."""
        from giltrace.timeline.fitting import load_fitting

        return None if self.folder is None else load_fitting(self.folder)

    @cached_property
    def _events(self) -> Timeline | None:
        """The timeline with every event."""
        from giltrace.timeline.fitting import load_every

        known = self.timeline
        return known if known is None or self.folder is None else load_every(self.folder, known)

    @contextlib.contextmanager
    def as_trace(
        self, changed: Timeline | None = None, *, whole: bool = False, first: Sequence[tuple[int, int]] = ()
    ) -> Iterator[Path]:
        """Yield a `.pftrace` file of it, or of the `changed` timeline; written for as long as needed if there is none.

        It has every event if the `whole` is asked for, else at most as many as a browser can hold, and those of the
        stretches `first` in any case; a trace alone is what it is. Raises `OutputError` if it cannot be written.
        """
        timeline = changed
        if timeline is None and not self._serves(whole, first):
            timeline = self._events if whole else self.timeline
        if timeline is None:
            assert self.trace is not None
            yield self.trace
            return
        from giltrace.exporters.perfetto.thinning import LIMIT
        from giltrace.exporters.perfetto.trace import write

        with tempfile.TemporaryDirectory(prefix="giltrace-") as folder:
            path = Path(folder) / (self.title + _TRACE)
            write(timeline, path, limit=None if whole else LIMIT, first=first)
            yield path

    def _serves(self, whole: bool, first: Sequence[tuple[int, int]]) -> bool:
        """Whether the trace that there is can be shown as it is, or there is nothing to make another one of."""
        if self.trace is None or self.folder is None:
            return self.trace is not None
        from giltrace.exporters.perfetto.thinning import LIMIT

        small = whole or self.trace.stat().st_size <= LIMIT
        return small and not ((whole or first) and thinned(self.trace))

    def need_small(self) -> None:
        """Raise `UsageError` if the trace of every event would be larger than trace processor can hold."""
        if self.folder is None or self._serves(whole=True, first=()):
            return
        from giltrace.exporters.perfetto.size import at_least_of_every_event

        assert self.timeline is not None
        whole = self.timeline.part_of
        least = at_least_of_every_event(self.timeline)
        if least > _LARGEST or whole is not None:
            much = f"{least / 1e9:.1f} GB" if whole is None else f"{whole.events / 1e6:,.0f} million events"
            raise UsageError(
                f"a trace of every event would have over {much}, more than SQL can be asked of",
                "ask all of it with --engine duckdb, or about a part, with --window A..B",
            )

    def need_timeline(self, what: str, selection: Selection | None = None, top_waits: int | None = None) -> Timeline:
        """The timeline with every event that the `selection` and the `top_waits` ask about.

        Raises `UsageError` for a trace alone, which `what` cannot be done with.
        """
        if self.folder is None or self.timeline is None:
            raise UsageError(f"{what} needs the recording, not its trace alone", f"name a NAME{SUFFIX} folder")
        if selection is None:
            assert self._events is not None
            return self._events
        from giltrace.analysis.selection import with_every_hold

        return with_every_hold(self.timeline, self.folder, selection, top_waits, every=True)


def _is_of(trace: Path, folder: Path) -> bool:
    """Whether there are both, and the trace, a file, was written after the recording."""
    try:
        return trace.is_file() and trace.stat().st_mtime_ns >= (folder / FILE).stat().st_mtime_ns
    except OSError:
        return False
