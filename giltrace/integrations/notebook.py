"""The IPython extension: ``%load_ext giltrace``, then ``%%giltrace`` for a cell and ``%giltrace`` for a statement."""

from __future__ import annotations

import ast
import contextlib
import linecache
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display

import giltrace
from giltrace.errors import GiltraceError
from giltrace.recording.meta import Meta


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Make the magics known; IPython calls it for ``%load_ext giltrace``."""
    shell.register_magics(GiltraceMagics)


@magics_class
class GiltraceMagics(Magics):
    """``%giltrace`` and ``%%giltrace``."""

    @line_cell_magic
    def giltrace(self, line: str, cell: str | None = None) -> None:
        """Run code and show who had the GIL, and who waited for it, over time.

        Usage, in line mode:
          %giltrace [-o NAME] [-f] [-s N] statement
        in cell mode:
          %%giltrace [-o NAME] [-f] [-s N]
          code
          code...

        All threads of the kernel are followed while the code runs. Functions of cells are named by the number of the
        cell. What the code shows and returns is as without; what it raises, too, and what was recorded until then is
        shown all the same.

        Options:
          -o NAME  keep the recording as NAME.giltrace, for `giltrace view NAME` and the other commands
          -f       replace an earlier recording of that name
          -s N     record at most N Python frames of each stack (default: 128)
        """
        __tracebackhide__ = True  # what the code raises is told from the code on
        shell = self.shell
        assert shell is not None
        options, rest = self.parse_options(line, "o:fs:", posix=False, strict=False)
        code = rest if cell is None else cell
        if cell is not None and rest.strip():
            raise UsageError(f"%%giltrace takes options only on its line, not {rest.strip()!r}: the code goes below it")
        if not code.strip():
            raise UsageError("%giltrace: there is no code to run; %giltrace? tells how it is used")
        stacks = options.get("s", "128")
        if not stacks.isdecimal():
            raise UsageError(f"-s {stacks} is no number of frames: write one like 128")
        parts = list(_compiled(shell, code))
        with _place(options.get("o")) as name, contextlib.ExitStack() as traced:
            try:
                recording = traced.enter_context(giltrace.trace(name, stacks=int(stacks), force="f" in options))
            except GiltraceError as error:
                raise UsageError(str(error)) from None
            try:
                for part in parts:
                    exec(part, shell.user_global_ns, shell.user_ns)
            finally:
                traced.close()
                _name_cells(shell, recording.path)
                text = str(recording.summary()) + (f"\nrecording {recording.path}" if "o" in options else "")
                display({"text/html": recording._repr_html_(), "text/plain": text}, raw=True)


def _compiled(shell: InteractiveShell, code: str) -> Iterator[CodeType]:
    """The code as IPython compiles a cell: its last expression is shown, and its functions are known by the cell."""
    source = shell.transform_cell(code)
    if shell.should_run_async(code, transformed_cell=source):
        raise UsageError(
            "%giltrace cannot run `await` outside of functions: write `with giltrace.trace() as recording: await ...`"
        )
    name = shell.compile.cache(source, shell.displayhook.prompt_count, raw_code=code)
    tree = shell.transform_ast(shell.compile.ast_parse(source, filename=name))
    last = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
    yield compile(tree, name, "exec", shell.compile.flags)
    if last:
        yield compile(ast.Interactive(last), name, "single", shell.compile.flags)


@contextlib.contextmanager
def _place(name: str | None) -> Iterator[Path]:
    """Where to record: as asked, or in a folder that is gone afterwards."""
    if name is not None:
        yield Path(name).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="giltrace-") as folder:
        yield Path(folder) / "cell"


def _name_cells(shell: InteractiveShell, recording: Path) -> None:
    """Write down what IPython calls the pieces of code that it knows: ``In[3]``, for a file that is made up."""
    told = ((name, shell.compile.format_code_name(name)) for name in tuple(linecache.cache))
    meta = Meta.read(recording)
    replace(meta, files={name: label[1] for name, label in told if label is not None}).write(recording)
