"""The address under which the Perfetto UI opens a trace where it matters."""

from __future__ import annotations

import json
from urllib.parse import quote

from giltrace.exporters.perfetto.cut import TRACK
from giltrace.views.moment import Moment


def page_address(page: str, trace: str, moment: Moment | None) -> str:
    """The address of `page`, the UI, that opens the address `trace` and begins at `moment`, or shows all.

    The GIL's holder and what a cut left out are pinned; the moment's process is unfolded, the others are not.
    """
    arguments: dict[str, str | int] = {"url": trace, "hideSidebar": "true"}
    if moment is not None:
        arguments |= {"visStart": moment.start, "visEnd": moment.end}
        if moment.wait is not None:
            arguments |= {"ts": moment.wait[0], "dur": moment.wait[1]}
    arguments["startupCommands"] = json.dumps(_commands(moment), separators=(",", ":"))
    return f"{page}#!/?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in arguments.items())


def _commands(moment: Moment | None) -> list[dict[str, object]]:
    commands = [("PinTracksByRegex", f"^holder(,|$)|^{TRACK}$")]
    if moment is not None and moment.pid is not None:
        pid = moment.pid
        # Every process's group ends in its pid, and so do those of its GILs, in brackets.
        commands.append(("CollapseTracksByRegex", r"^(?!CPU ).* \d+$|^GIL( \d+)? \(pid \d+\)$"))
        commands.append(("ExpandTracksByRegex", rf" {pid}$|^GIL( \d+)? \(pid {pid}\)$"))
    return [{"id": f"dev.perfetto.{name}", "args": [pattern]} for name, pattern in commands]
