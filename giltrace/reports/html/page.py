"""The page: data, style and scripts put into one file that loads nothing and lets nothing else run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from giltrace import __version__
from giltrace.analysis.finding_results import Hog
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.ranked import CAUSES
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.results import ProcessReport, Report
from giltrace.exporters._output import output_file
from giltrace.reports.convoys import alike
from giltrace.reports.html import lanes as lanes_of
from giltrace.reports.html.blocks import Blocks, on_lanes
from giltrace.reports.html.lanes import FREE, Lanes
from giltrace.reports.html.mixes import find_mixes
from giltrace.reports.html.stacks import MOST, stack_names
from giltrace.reports.html.waits import histogram
from giltrace.reports.thread_rows import as_summary, busiest, thread_rows
from giltrace.reports.tree import Branch, process_tree, weight
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process, Timeline

#: So much is put into a page; what is left out is counted there.
MOST_PROCESSES = 24
MOST_THREADS = 256
MOST_GILS = 8
MOST_BLAME = 400
MOST_EXAMPLES = 50
MOST_FRAMES = 40
MOST_FUNCTIONS = 3
MOST_LINES = 200
MOST_PLACES = 200

SCRIPTS = (
    *("format.js", "decode.js", "drawing.js", "lanes.js", "charts.js", "figures.js", "flames.js", "tables.js"),
    *("sections.js", "locks.js", "tasks.js", "timeline.js", "selection.js", "page.js"),
)

Json = dict[str, Any]


def write_html(timeline: Timeline, report: Report, path: Path, title: str = "") -> None:
    """Write the report as one HTML file, replacing `path` whole or not at all; ``-`` is stdout.

    `timeline` is the one that `report` was made from; `title` names the recording (default: by `path`). Raises
    `OutputError` if the file cannot be written.
    """
    page = _page(_data(timeline, report, title or path.stem))
    with output_file(path, "--html") as file:
        file.write(page.encode())


def _page(data: Json) -> str:
    style = _part("style.css")
    script = "\n".join(_part(name) for name in SCRIPTS)
    template = _part("page.html")
    parts = {
        "STYLE-HASH": _hash(style),
        "SCRIPT-HASH": _hash(script),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _json(data),
    }
    # Split first, so that nothing inserted is taken for a place to insert at.
    head, *rest = template.split("<!--#")
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("#-->")
        pieces += [parts[name], text]
    return "".join(pieces)


def _part(name: str) -> str:
    return (resources.files("giltrace.reports.html") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Json) -> str:
    """JSON that cannot end the element it stands in: names in it are whatever the recorded program chose."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(timeline: Timeline, report: Report, title: str) -> Json:
    pairs = sorted(zip(timeline.processes, report.processes, strict=True), key=lambda pair: -weight(pair[1]))
    shown = pairs[:MOST_PROCESSES]
    begin = _begin(timeline)
    made = [_Drawing(timeline, process, told, begin) for process, told in shown]
    tick = lanes_of.resolution([lane for one in made for lane in one.gils + one.threads])
    return {
        "title": title,
        "version": __version__,
        "schema": report.schema,
        "lanes_ns": timeline.end - begin,
        "part": "; ".join(filter(None, (report.caught, *report.part))),
        "tick_ns": tick,
        "machine": timeline.machine,
        "causes": CAUSES,
        "process_count": len(pairs),
        "tree": _tree(report, [told for _, told in shown]),
        "gils_at_once": report.gils_at_once,
        "quality": dataclasses.asdict(report.quality),
        "tasks": [dataclasses.asdict(row) for row in report.tasks[:MOST_PLACES]],
        "task_blame": [dataclasses.asdict(row) for row in report.task_blame[:MOST_PLACES]],
        "fleet": None if report.fleet is None else dataclasses.asdict(report.fleet),
        "processes": [
            {**_told(told), "histogram": histogram(process), **one.sent(tick, MOST // len(shown))}
            for (process, told), one in zip(shown, made, strict=True)
        ],
    }


def _begin(timeline: Timeline) -> int:
    """Where the lanes begin: a recording's times count from its first instant, for --window as in the trace."""
    return timeline.start if timeline.part else timeline.recorded[0]


def _tree(report: Report, shown: Sequence[ProcessReport]) -> list[Json]:
    """The lines of the tree of processes; `at` are the places of those on the page that a line stands for."""
    place = {id(process): at for at, process in enumerate(shown)}
    lines = process_tree(report.processes)[:MOST_LINES]
    return [{"depth": depth, **_branch(branch, place)} for depth, branch in lines]


def _branch(branch: Branch, place: dict[int, int]) -> Json:
    single = len(branch.processes) == 1
    return {
        "which": branch.which,
        "runs": branch.runs,
        "verdicts": branch.verdicts,
        "threads": len(branch.threads),
        "held_ns": branch.held_ns,
        "waited_ns": branch.waited_ns,
        "wait_max_ns": branch.wait_max_ns,
        "at": place.get(id(branch.processes[0])) if single else None,
        "each": [] if single else [_branch(Branch([process]), place) for process in branch.processes[:MOST_LINES]],
    }


class _Drawing:
    """What is drawn of one process: the lanes of its GILs and threads."""

    def __init__(self, timeline: Timeline, process: Process, report: ProcessReport, start: int) -> None:
        self._process, self._start = process, start
        self._figures = Costed(process, timeline.began_ns)
        self._chosen = chosen = [process.chosen_threads[at] for at in busiest(report.threads, MOST_THREADS)]
        self._lane_of: Ints = np.full(len(process.threads), FREE - 1, np.int64)
        self._lane_of[chosen] = np.arange(len(chosen))
        self._mixes = find_mixes(process, self._figures)
        self._blocks = Blocks(self._figures, start)
        make = Lanes(process, start, timeline.end, self._mixes.of_wait)
        self.gils = [make.gil(gil, self._lane_of) for gil in range(min(process.gils, MOST_GILS))]
        lanes = zip(make.threads(chosen), chosen, strict=True)
        self.threads = [self._blocks.over(lane, thread) for lane, thread in lanes]

    def sent(self, tick: int, most_stacks: int) -> Json:
        """The lanes at the page's resolution, with all that they show."""
        thin = [lanes_of.thinned(lane, tick) for lane in self.gils + self.threads]
        names, numbers = stack_names(self._process.stacks, thin, most_stacks)
        packed = [lanes_of.packed(lane, numbers) for lane in thin]
        known = np.where(self._lane_of < len(self.threads), self._lane_of, -1)
        return {
            **names,
            "mixes": self._mixes.told,
            "wakes": self._blocks.wakes,
            "path": on_lanes(self._figures.path, known, self._start, tick),
            "free_threaded": self._process.free_threaded,
            "python_lanes": np.flatnonzero(python_threads(self._process)[self._chosen]).tolist(),
            "gil_lanes": packed[: len(self.gils)],
            "thread_lanes": packed[len(self.gils) :],
        }


def _told(report: ProcessReport) -> Json:
    """Everything but the lanes, cut to what a page shows; threads that have a lane come first, in its order."""
    chosen = busiest(report.threads, MOST_THREADS)
    others = [at for at in range(len(report.threads)) if at not in set(chosen)]
    of_page = {at: number for number, at in enumerate(chosen + others[: 4 * MOST_THREADS])}
    threads = [dataclasses.asdict(report.threads[at]) for at in of_page]
    return {
        **dataclasses.asdict(_short_report(report)),
        "hogs": [{**dataclasses.asdict(hog), "functions": _functions(hog)} for hog in report.hogs],
        "convoys": [{**dataclasses.asdict(convoy), "threads": many} for convoy, many in alike(report.convoys)],
        "threads": threads,
        "thread_rows": _thread_rows(report, of_page),
        "more_threads": len(report.threads) - len(threads),
        "blame": [_short(dataclasses.asdict(row), at) for at, row in enumerate(report.blame[:MOST_BLAME])],
        "blame_by_function": [
            dataclasses.asdict(dataclasses.replace(row, victim_lines=(), culprit_lines=()))
            for row in report.blame_by_function[:MOST_BLAME]
        ],
        "more_blame": max(len(report.blame) - MOST_BLAME, 0),
        "whereabouts_ns": sum(row.ns for row in report.whereabouts),
        "more_whereabouts": max(len(report.whereabouts) - MOST_PLACES, 0),
    }


def _short_report(report: ProcessReport) -> ProcessReport:
    """The report without what is told in another way, and with so many rows of the rest as a page shows."""
    return dataclasses.replace(
        report,
        blame=(),
        blame_by_function=(),
        victims=(),
        culprits=(),
        threads=(),
        hogs=(),
        convoys=(),
        whereabouts=report.whereabouts[:MOST_PLACES],
        lock_blame=report.lock_blame[:MOST_PLACES],
        critical_path=report.critical_path[:MOST_PLACES],
        tasks=(),
        task_blame=(),
    )


def _thread_rows(report: ProcessReport, of_page: dict[int, int]) -> list[Json]:
    """The rows of the table of threads: what those of one did together, and the places on the page of each of them."""
    summaries = [as_summary(thread) for thread in report.threads]
    number = {id(summary): at for at, summary in enumerate(summaries)}
    return [
        {
            "name": row.name,
            "threads": [of_page[at] for at in (number[id(one)] for one in row.threads) if at in of_page],
            "number": len(row.threads),
            "life_ns": row.life_ns,
            "holds": row.holds,
            "held_ns": row.held_ns,
            "waits": row.waits,
            "waited_ns": row.waited_ns,
            "wait_max_ns": row.longest_wait_ns,
            "forced": row.forced,
            "states_ns": {state.label: ns for state, ns in row.states_ns.items()},
            "cores": row.cores,
        }
        for row in thread_rows(summaries)
    ]


def _functions(hog: Hog) -> list[Json]:
    """The native functions that a hog was in most, in words."""
    return [
        {"told": f"{one} ({one.library})" if one.name else str(one), "samples": one.samples}
        for one in hog.functions[:MOST_FUNCTIONS]
    ]


def _short(blame: Json, at: int) -> Json:
    """Example stacks are for the first rows only, and not endless."""
    for side in ("victim_stack", "culprit_stack"):
        blame[side] = blame[side][:MOST_FRAMES] if at < MOST_EXAMPLES else ()
    return blame
