"""What all commands that record do before and after it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from giltrace.cli.progress import working
from giltrace.text import visible

if TYPE_CHECKING:
    from giltrace.launch.live import Output

_LAST_LINES = 20


def outputs(asked: Path | None, usual: str, *, force: bool) -> tuple[Path, Path]:
    """Return the recording's folder and the trace: those `asked` for, else of the `usual` name.

    Where a recording or a trace has the usual name it gets a number, unless `force` replaces it: ``convoy.2``. Raises
    `UsageError` if what is asked for is no name, and `OutputError` if it is taken.
    """
    from giltrace.recording.folder import SUFFIX, TRACE_SUFFIX, numbered

    name = _stem(asked, (SUFFIX, TRACE_SUFFIX)) if asked is not None else Path(usual)
    folder = name.with_name(name.name + SUFFIX)
    if asked is None and not force:
        folder = numbered(folder)
    trace = folder.with_name(folder.name.removesuffix(SUFFIX) + TRACE_SUFFIX)
    if asked is not None:
        need_force(trace, force=force)
    return folder, trace


def _stem(name: Path, suffixes: tuple[str, ...]) -> Path:
    stem = name.name
    for suffix in suffixes:
        stem = stem.removesuffix(suffix)
    if stem in ("", ".."):
        from giltrace.errors import UsageError

        raise UsageError(
            f"-o {str(name)!r} names no recording", "give its name, with its folder if you like: -o out/slow"
        )
    return name.with_name(stem)


def need_force(path: Path, *, force: bool, option: str = "-o") -> None:
    """Raise `OutputError` if writing `path` would replace a file, or what is in a folder, and `force` is not given.

    `option` is the one that names another place.
    """
    from giltrace.errors import OutputError, UsageError

    if path.name in ("", ".."):
        raise UsageError(f"{option} {str(path)!r} names nothing that could be written", "give a name")
    try:
        taken = path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError as error:
        raise OutputError(f"cannot look at {path}: {error.strerror}", f"choose another place with {option}") from None
    if taken and not force:
        raise OutputError(f"{path} exists", f"choose another name with {option}, or replace it with --force")


def show(folder: Path, trace: Path, *, no_trace: bool = False) -> None:
    """Export the finished recording `folder` to `trace`; print its summary and what to do next to stderr.

    With `no_trace` there is none, nor one of a recording that was replaced. Whoever ends this meanwhile keeps the
    recording, and is told so; so is who has no room for the trace.
    """
    from rich.text import Text

    from giltrace.analysis.summary import summarise
    from giltrace.cli.loading import load
    from giltrace.errors import OutputError
    from giltrace.recording.folder import SUFFIX
    from giltrace.reports.console import console as new_console
    from giltrace.reports.summary import print_summary
    from giltrace.text import visible

    with _recording_kept(folder), working(f"writing {trace}"):
        timeline = load(folder)
        thinned, failed = "", None
        if no_trace:
            trace.unlink(missing_ok=True)
        else:
            from giltrace.exporters.perfetto.trace import write

            try:
                thinned = write(timeline, trace)
            except OutputError as error:
                failed = error
                with contextlib.suppress(OSError):
                    trace.unlink()  # of the recording that was replaced
        summary = summarise(timeline)
    console = new_console(stderr=True)
    print_summary(summary, console)
    name = _typed(str(folder.with_name(folder.name.removesuffix(SUFFIX))))
    lines = [f"recording {visible(str(folder))}"]
    if failed is not None:
        lines.append(f"trace     none: {visible(failed.message)}")
        lines.append(f"next      {_program()} export {name} --to perfetto -o ELSEWHERE")
    elif not no_trace:
        lines.append(f"trace     {visible(str(trace))}  (open it in the Perfetto UI)")
    if thinned:
        from giltrace.exporters.perfetto.thinning import OR_A_PART

        lines.append(f"{thinned}; {_program()} export {name} --to perfetto --all {OR_A_PART}")
    lines += [f"next      {_program()} {command} {name}" for command in ("report", "view")]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


@contextlib.contextmanager
def _recording_kept(folder: Path) -> Iterator[None]:
    """Say that the recording is complete if the block is ended by a signal, and end as that is usual."""
    ended = [signal.SIGINT]

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(signal.Signals(number))
        raise KeyboardInterrupt

    heeded = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_DFL]
    try:
        for one in heeded:
            signal.signal(one, end)
        yield
    except KeyboardInterrupt:
        print(f"giltrace: interrupted after the end; the recording {folder} is complete", file=sys.stderr)
        raise typer.Exit(128 + ended[-1]) from None
    finally:
        for one in heeded:
            signal.signal(one, signal.SIG_DFL)


def _typed(name: str) -> str:
    """A path as it is typed into a shell."""
    name = f"./{name}" if name.startswith("-") else name
    if name.isprintable():
        return shlex.quote(name)
    escaped = "".join(one if one.isprintable() and one not in "'\\" else _octal(one) for one in name)
    return f"$'{escaped}'"


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def _program() -> str:
    """What this command was typed as, where that is not found as ``giltrace``."""
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m giltrace"
    found = shutil.which("giltrace")
    typed = sys.argv[0]
    same = found is not None and os.path.exists(typed) and os.path.samefile(found, typed)
    return "giltrace" if same else shlex.quote(typed)


def exit_like(status: int) -> None:
    """End as the target did: by the same signal, or with the same status."""
    if status < 0:
        sys.stdout.flush()
        sys.stderr.flush()
        import resource

        # The target has dumped core if it was to; ours would only be in the way.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if -status != signal.SIGKILL:  # which has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    raise typer.Exit(status)


def tell_printed(printed: Output) -> None:
    """Show the last lines of what a command printed while the screen was not its own."""
    lines = printed.last_lines(_LAST_LINES)
    if lines:
        print("giltrace: the last lines that the command printed:", file=sys.stderr)
        print(*(visible(line, keep="\t") for line in lines), sep="\n", file=sys.stderr)
