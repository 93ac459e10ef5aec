"""The tables that are sums: blame, and for how long so many threads waited. Those of windows are added up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from giltrace.analysis.measure.attribution import Shares, attribute_in_parts, joined, merged
from giltrace.analysis.measure.sites import Classes
from giltrace.analysis.site import frame_text
from giltrace.exporters._relations import waiting_counts
from giltrace.exporters.tables.image import Image
from giltrace.exporters.tables.texts import Columns, Texts
from giltrace.timeline.axis import NEVER, Bools, Ints

#: A role, a site, and its own line.
_Words = tuple[str, str, str]
#: So many rows of pairs are added up at a time.
_ROWS = 1 << 18


def blame(image: Image) -> Iterator[Columns]:
    """All pairs of who waited and who held the GIL meanwhile, by role and line."""
    found = Blame(image)
    yield found.columns(joined([]))
    for part in found.parts(image):
        yield found.columns(part)


def waiting(image: Image) -> Iterator[Columns]:
    """For how long so many threads waited for a GIL at once: of the chosen ones."""
    found = Waiting(image)
    found.add(image)
    yield from found.tables()


class Blame:
    """Adds up the blame of one image, window by window."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._victims: dict[_Words, int] = {}
        self._culprits: dict[_Words, int] = {}
        self._sum, self._new = joined([]), list[Shares]()

    def parts(self, image: Image) -> Iterator[Shares]:
        """The pairs of an image or of a window of it, in the numbers of their words; none twice."""
        process, places = image.process, image.places
        held = replace(process, holds=places.held.holds)
        victim = _by_words(places.sites.classify(process.waits["thread"], places.wait_stack), self._victims)
        culprit = _by_words(places.sites.classify(held.holds["thread"], places.held.stack), self._culprits)
        own: Bools = np.zeros(len(process.waits), np.bool_)
        own[image.own(process.waits)] = True
        yield from attribute_in_parts(held, victim, culprit, own & process.of_chosen(process.waits))

    def add(self, image: Image) -> None:
        """Add a window."""
        for part in self.parts(image):
            self._new.append(part)
            if sum(len(one.ns) for one in self._new) > max(_ROWS, len(self._sum.ns)):
                self._add_up()

    def _add_up(self) -> None:
        rows = joined([self._sum, *self._new])
        self._sum, self._new = merged(rows.rows(np.lexsort((rows.victim, rows.culprit)))), []

    def tables(self) -> Iterator[Columns]:
        """The rows of all windows."""
        self._add_up()
        for at in range(0, max(len(self._sum.ns), 1), _ROWS):
            yield self.columns(self._sum.rows(np.arange(at, min(at + _ROWS, len(self._sum.ns)))))

    def columns(self, pairs: Shares) -> Columns:
        """Rows in words."""
        count = len(pairs.ns)
        return {
            "image": np.full(count, self._image.number),
            "pid": np.full(count, self._image.process.pid),
            **_told("victim", pairs.victim, self._victims),
            **_told("culprit", pairs.culprit, self._culprits),
            "waits": pairs.waits,
            "duration": pairs.ns,
            "max_duration": pairs.max_ns,
        }


class Waiting:
    """Adds up for how long so many threads waited at once, window by window of one image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._spent = [np.zeros(1, np.int64) for _ in range(max(image.process.gils, 1))]

    def add(self, image: Image) -> None:
        """Add the image, or a window of it."""
        process, window = image.process, image.window
        waits = process.waits[process.of_chosen(process.waits)]
        begin, end = process.start, int(NEVER)
        if window is not None:
            begin, end = max(begin, window.since), max(begin, window.until)
            waits = waits[(waits["start"] < end) & (waits["end"] > begin)]
            for edge in ("start", "end"):
                waits[edge] = np.clip(waits[edge], begin, end)
        end = process.end if end == NEVER else end
        for gil, known in enumerate(self._spent):
            times, counts = waiting_counts(replace(process, start=begin, waits=waits), gil)
            spent = np.zeros(max(int(counts.max()) + 1, len(known)), np.int64)
            spent[: len(known)] = known
            np.add.at(spent, counts, np.diff(times, append=max(end, int(times[-1]))))
            self._spent[gil] = spent

    def tables(self) -> Iterator[Columns]:
        """The rows of all windows, a table for each GIL."""
        for gil, spent in enumerate(self._spent):
            some = np.flatnonzero(spent)
            yield {
                "image": np.full(len(some), self._image.number),
                "pid": np.full(len(some), self._image.process.pid),
                "gil": np.full(len(some), gil),
                "waiting": some,
                "duration": spent[some],
            }


def _by_words(classes: Classes, number: dict[_Words, int]) -> Ints:
    """Rows sorted by what is said of them in words: the `number` of that for each, to which what is new is added."""
    of_class = []
    for site in classes.sites:
        leaf = frame_text((site.function, site.file, site.line))
        of_class.append(number.setdefault((site.thread, leaf, frame_text(site.own_frame)), len(number)))
    return np.array(of_class, np.int64)[classes.of_row] if of_class else classes.of_row


def _told(who: str, row: Ints, number: dict[_Words, int]) -> Columns:
    columns = list(zip(*number, strict=True)) or [(), (), ()]
    names = (who, f"{who}_site", f"{who}_own_line")
    return {name: Texts(row, column) for name, column in zip(names, columns, strict=True)}
