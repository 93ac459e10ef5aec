"""`giltrace dump`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.completion.candidates import files, recorded
from giltrace.cli.progress import working


def dump(
    pid: Annotated[
        int,
        typer.Argument(
            metavar="PID", help="A process that is being recorded.", show_default=False, min=1, autocompletion=recorded
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NAME",
            help="Write NAME.giltrace. [default: RECORDING-at-TIME]",
            autocompletion=files,
        ),
    ] = None,
) -> None:
    """Write out what the recording of a running process holds by now; the recording goes on.

    \b
    giltrace record --ring 64MiB -- gunicorn app:app   in one terminal, for days
    giltrace dump 4711 -o slow    in another: the last moments, as slow.giltrace

    PID is any process that is recorded, by `giltrace record` or `giltrace attach`, with --ring or without.
    """
    import time

    from giltrace.collectors.flight import dump as write
    from giltrace.collectors.rules.base import Caught
    from giltrace.errors import RecordingError
    from giltrace.launch.attach.sleepers import asleep_now
    from giltrace.recording.folder import SUFFIX
    from giltrace.recording.locate import being_written
    from giltrace.recording.meta import Meta
    from giltrace.recording.trigger import Trigger

    written = being_written(pid)
    if written is None:
        from giltrace.launch.attach.checkup import refuse_other_than_python

        refuse_other_than_python(pid)
        raise RecordingError(
            f"process {pid} is not being recorded",
            f"start it with `giltrace record --ring`, or record it from now on: giltrace attach {pid}",
        )
    now = time.monotonic_ns()
    if output is not None:
        name = output
    elif written.is_foreign:
        # Nothing is written where another user may have put links.
        name = Path(f"pid-{pid}-at-{now // 1_000_000}ms")
    else:
        milliseconds = (now - Meta.read(written.path).start_ns) // 1_000_000
        name = written.path.with_name(f"{written.path.name.removesuffix(SUFFIX)}-at-{milliseconds}ms")
    out = name.with_name(name.name.removesuffix(SUFFIX) + SUFFIX)
    with working(f"writing {out}"):
        caught = Caught(Trigger("request", f"giltrace dump {pid}", now, pid=pid))
        write(written.folder, out, caught, pid, asleep_now)
    print(out)
