"""The outcome of `giltrace check` as GitHub Actions shows it: an annotation at the line that is to blame.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from giltrace.analysis.compare.check import Outcome
from giltrace.reports.check.checked import Checked, notes, sentence
from giltrace.text import visible

#: What ends a property's value, or begins an escape.
_IN_TEXT = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTIES = {**_IN_TEXT, ord(":"): "%3A", ord(","): "%2C"}


def lines(checked: Sequence[Checked]) -> Iterator[str]:
    """Yield an annotation for each rule that failed and each recording that could not be checked, a line for the rest.

    Files are named from the workspace on, ``GITHUB_WORKSPACE`` or the current directory; what is not in it has none.
    """
    workspace = Path(os.environ.get("GITHUB_WORKSPACE") or ".")
    for one in checked:
        name = visible(one.name)
        if one.error is not None:
            remedy = f"\n{one.error.remedy}" if one.error.remedy else ""
            yield _command("error", {"title": "giltrace"}, visible(f"{one.error.message}{remedy}", keep="\n"))
        for outcome in one.outcomes:
            if outcome.passed:
                yield _harmless(f"{name}: PASS {outcome.rule}: {sentence(outcome)}")
            else:
                properties = {**_place(outcome, workspace), "title": f"giltrace: {outcome.rule}"}
                yield _command("error", properties, f"{name}: {sentence(outcome)}")
        if one.result is not None:
            for note in notes(one.result):
                yield _command("warning", {"title": "giltrace"}, f"{name}: {note}")


def _command(command: str, properties: Mapping[str, str], text: str) -> str:
    told = ",".join(f"{key}={value.translate(_IN_PROPERTIES)}" for key, value in properties.items())
    return f"::{command} {told}::{text.translate(_IN_TEXT)}"


def _harmless(line: str) -> str:
    """A line that is no command: the older form of these, ``##[name]``, may stand anywhere in a line."""
    return line.replace("##[", "# #[")


def _place(outcome: Outcome, workspace: Path) -> dict[str, str]:
    """The file and the line of the user's that are to blame, if they are in the workspace."""
    site = outcome.culprit
    file = in_workspace(site.own_file, workspace) if site is not None else None
    if site is None or file is None:
        return {}
    return {"file": file, "line": str(site.own_line)} if site.own_line > 0 else {"file": file}


def in_workspace(file: str, workspace: Path) -> str | None:
    """The path of a recorded file from `workspace` on; None if it is not in there.

    A relative name is one from the current directory on, where there is such a file.
    """
    path = Path(file)
    if not file or not (path.is_absolute() or path.is_file()):
        return None
    # Either may be named by way of links.
    for base, inner in ((workspace.absolute(), path.absolute()), (workspace.resolve(), path.resolve())):
        found = Path(os.path.normpath(inner))
        if found.is_relative_to(base):
            return found.relative_to(base).as_posix()
    return None
