"""Tell exports of processes that count, interval by interval, until all is over or somebody ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from giltrace.launch.counting import Counted
from giltrace.metrics.before import Before
from giltrace.metrics.export import Export
from giltrace.metrics.ledger import Ledger
from giltrace.metrics.page import Pages
from giltrace.metrics.reading import ProcessReading


class PagesOf:
    """Reads the pages of what is counted, with the rights of whoever writes them."""

    def __init__(self, counted: Counted) -> None:
        self._pages = Pages(counted.folder, counted.pid_here)
        self._do = counted.do
        self._over = counted.over
        self._before = Before(counted.folder, counted.holders) if counted.holders else None

    def read(self, *, reset_longest: bool = False) -> tuple[ProcessReading, ...]:
        """See `Pages.read`."""
        alive = self._before is not None and self._over() is None

        def read() -> tuple[ProcessReading, ...]:
            readings = self._pages.read(reset_longest=reset_longest)
            return readings if self._before is None else self._before.added_to(readings, alive=alive)

        readings: tuple[ProcessReading, ...] = self._do(read)
        return readings

    @property
    def refused(self) -> tuple[str, ...]:
        """See `Pages.refused`."""
        return self._pages.refused

    def forget(self, pid: int) -> None:
        """See `Pages.forget`."""
        self._do(lambda: self._pages.forget(pid))


def ledger_of(counted: Counted) -> Ledger:
    """The sums of what is counted: kept with others where they read and tidy up there, too."""
    return Ledger(PagesOf(counted), counted.folder if counted.shared else None)


def follow(
    ledger: Ledger,
    exports: Sequence[Export],
    interval: float,
    *,
    start: Callable[[], None],
    wait: Callable[[float], None],
    goes_on: Callable[[], bool],
    say: Callable[[str], None] | None = None,
) -> None:
    """Tell the `exports` each `interval` (seconds), and once more at the end, which `wait` may bring forward.

    What counts is let `start` when all is ready. `say` is told why some of it cannot be read, once each.
    """
    first = ledger.update()
    for export in exports:
        export.begin(ledger.update, first)
    start()
    due = time.monotonic()
    over, said = False, set[str]()
    while not over:
        due = max(due + interval, time.monotonic())
        wait(due)
        over = not goes_on()
        totals = ledger.update()
        if say is not None:
            for why in [why for why in totals.refused if why not in said]:
                said.add(why)
                say(f"not counted: {why}")
        for export in exports:
            export.tell(totals)
