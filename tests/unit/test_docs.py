"""The documentation: links resolve, and what it names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(p for top in ("docs", "giltrace", "traces") for p in (ROOT / top).rglob("*.md"))])

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.M)
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
#: A path that a page names in code style: it has a folder and an ending that this project uses.
_NAMED = re.compile(r"`((?:giltrace|tests|workloads|docs|traces|benchmarks)/[\w./-]+\.(?:py|md|[ch]|so|sh))`")
_BUILT = {"giltrace/native/lib/libgiltrace-x86_64-glibc.so"}


def anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_named_exist(page: Path) -> None:
    missing = {name for name in _NAMED.findall(page.read_text()) if not (ROOT / name).exists()}
    assert missing <= _BUILT


def test_finds_broken_links(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n\n[1](page.md#a-b) [2](gone.md) [3](#no) [4](https://example.org/x)\n```\n[5](gone)\n```\n")
    assert list(broken_links(page)) == ["gone.md", "#no"]


def test_decisions_are_numbered_without_gap() -> None:
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(p.name[:4]) for p in notes] == list(range(1, len(notes) + 1))
    assert all(p.read_text().startswith(f"# {int(p.name[:4])}. ") for p in notes)
