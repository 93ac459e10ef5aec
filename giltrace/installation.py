"""How this giltrace was installed, and the command that adds something to it or installs it again."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "giltrace"
UNBUILT = "this giltrace has no tracer: there was no C compiler when it was installed"


def with_extra(extra: str) -> str:
    """Return the command that adds what the optional `extra` needs of pyproject.toml needs."""
    needed = _needed(extra)
    if _is_pipx():
        return _typed("pipx", "inject", NAME, *needed)
    if _receipt() is not None:
        return _uv_tool(needed)
    place, editable = _source()
    if editable:
        return _pip("-e", f"{place}[{extra}]")
    return _pip(f"{NAME}[{extra}]")


def with_package(requirement: str) -> str:
    """Return the command that installs a package, such as ``py-spy``, beside giltrace."""
    if _is_pipx():
        return _typed("pipx", "inject", NAME, requirement)
    return _uv_tool([requirement]) if _receipt() is not None else _pip(requirement)


def elsewhere(version: str = "") -> str:
    """Return the command that installs giltrace, in this `version`, on a machine of which nothing is known."""
    return _typed("pip", "install", f"{NAME}=={version}" if version else NAME)


def again() -> str:
    """Return the command that builds giltrace anew, from where it came, and installs it again."""
    if _is_pipx():
        return _typed("pipx", "reinstall", NAME)
    if _receipt() is not None:
        return _uv_tool([], "--reinstall")
    place, editable = _source()
    if editable:
        return _pip("-e", place)
    # From an index, pip would take the wheel that it built and kept the last time.
    options = ["--force-reinstall", "--no-deps"] if place else ["--force-reinstall", "--no-deps", "--no-cache-dir"]
    return _pip(*options, place or NAME)


def how_to_build() -> str:
    """Return what to do about a giltrace that is `UNBUILT`."""
    return f"install one (on Debian and Ubuntu: apt-get install gcc), then: {again()}"


def _pip(*words: str) -> str:
    """The command that makes pip, or uv where a virtual environment has no pip, install into this environment."""
    python = sys.executable
    if importlib.util.find_spec("pip") is None:
        return _typed("uv", "pip", "install", "--python", python, *words)
    return _typed(python, "-m", "pip", "install", *words)


def _uv_tool(more: list[str], *options: str) -> str:
    """The command that installs the tool with `more` than it has by now; what is not named again would go."""
    own, others = NAME, list[str]()
    for one in (_receipt() or {}).get("requirements", []):
        place = next((one[key] for key in ("directory", "editable", "path", "url") if key in one), "")
        if one.get("name") == NAME:
            own = place or own
            options = (*options, "--editable") if "editable" in one else options
        else:
            others.append(place or f"{one['name']}{one.get('specifier', '')}")
    words = [word for requirement in dict.fromkeys([*others, *more]) for word in ("--with", requirement)]
    return _typed("uv", "tool", "install", *options, *words, own)


def _typed(*words: str) -> str:
    return shlex.join(words)


def _is_pipx() -> bool:
    return (Path(sys.prefix) / "pipx_metadata.json").is_file()


def _receipt() -> dict[str, Any] | None:
    """What uv wrote down of the tool that it installed here; None if it did not."""
    try:
        text = (Path(sys.prefix) / "uv-receipt.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tool: dict[str, Any] = tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError:
        return {}
    return tool


def _source() -> tuple[str, bool]:
    """The folder or address that this was installed from, "" for an index, and whether it runs from there."""
    from importlib import metadata

    try:
        origin = json.loads(metadata.distribution(NAME).read_text("direct_url.json") or "{}")
        url, info = str(origin.get("url", "")), origin.get("dir_info", {})
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return "", False
    if url.startswith("file:"):
        url = unquote(urlsplit(url).path)
    elif "vcs_info" in origin:
        url = f"{origin['vcs_info'].get('vcs', 'git')}+{url}"
    return url, bool(info.get("editable"))


def _needed(extra: str) -> list[str]:
    """The requirements of the optional `extra`; its name within giltrace's where they are not on record."""
    from importlib import metadata

    try:
        lines = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        lines = []
    marked = (line.partition(";") for line in lines)
    found = [name.strip() for name, _, marker in marked if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker)]
    return found or [f"{NAME}[{extra}]"]
