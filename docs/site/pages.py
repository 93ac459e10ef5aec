"""What the site consists of: the pages of docs/, those made from the code, and files from elsewhere in the checkout.

Pages that are made from the code exist in the build only, so that none can go stale.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from functools import partial
from pathlib import Path

from docs.site import commands, gallery

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

START = "index.md"
#: The navigation, group by group; a folder stands for all pages in it. A page that is not here fails the build.
NAVIGATION: dict[str, tuple[str, ...]] = {
    "Begin": (
        "tutorial.md",
        "recipes.md",
        "reading.md",
        gallery.SOURCE,
        "safety.md",
        "tried.md",
        "comparison.md",
        "benchmarks.md",
        "forecasts.md",
    ),
    "Use": (
        commands.SOURCE,
        "metrics.md",
        "pytest.md",
        "notebooks.md",
        "dask.md",
        "ray.md",
        "cookbook.md",
        "ci.md",
        "api.md",
    ),
    "Formats": ("formats.md", "report-json.md", "recording-format.md"),
    "How it works": ("ARCHITECTURE.md", "decisions.md"),
}

#: Pages of the site that are written elsewhere in the checkout.
ELSEWHERE = {"recording-format.md": "giltrace/native/FORMAT.md"}

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)(?:#([^)\s]*))?\)")


def assemble(target: Path) -> None:
    """Write the site's sources into the new folder `target`: Markdown pages, pictures and downloads."""
    pages = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
    pages |= {name: (ROOT / source).read_text(encoding="utf-8") for name, source in ELSEWHERE.items()}
    explained = pages[commands.SOURCE]
    pages[commands.SOURCE] = commands.index(explained)
    pages |= {page: commands.page(name, explained) for page, name in commands.pages().items()}
    pages[gallery.SOURCE] = gallery.page(pages[gallery.SOURCE])
    pages["decisions.md"] = _decisions(pages)
    pages[START] += _navigation(pages)
    for name, text in pages.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_LINK.sub(partial(_relinked, page=name), text), encoding="utf-8")
    for folder in ("pictures", "monitoring"):
        shutil.copytree(DOCS / folder, target / folder)
    (target / gallery.DOWNLOADS).mkdir()
    for sample in gallery.downloads():
        shutil.copy(sample, target / gallery.DOWNLOADS)


def _decisions(pages: dict[str, str]) -> str:
    names = sorted(name for name in pages if name.startswith("decisions/"))
    titles = (pages[name].partition("\n")[0].removeprefix("# ") for name in names)
    entries = (f"* [{title}]({name})" for title, name in zip(titles, names, strict=True))
    return "\n".join(
        ["# Decisions", "", "What was decided and why; and what was refused.", "", *entries, "", _tree(names)]
    )


def _navigation(pages: dict[str, str]) -> str:
    return "".join(_tree([n for n in names if n in pages], caption) for caption, names in NAVIGATION.items())


def _tree(names: list[str], caption: str = "") -> str:
    title = f":caption: {caption}\n" if caption else ""
    return "\n```{toctree}\n:hidden:\n" + title + "\n" + "\n".join(names) + "\n```\n"


def _relinked(link: re.Match[str], page: str) -> str:
    """The `link` of `page` as the site has it: to the page that shows there what the link names in the checkout."""
    before, target, anchor = link.groups()
    if re.match(r"[a-z]+:", target) or not (target or anchor):
        return link[0]
    source = _source(page)
    meant = source.parent.joinpath(target).resolve() if target else source
    there = next((name for name, path in ELSEWHERE.items() if meant == ROOT / path), None)
    there = there or Path(os.path.relpath(meant, DOCS)).as_posix()
    if there == commands.SOURCE and anchor and (own := commands.page_of(anchor)):
        there, anchor = own, None
    if there == page and anchor:
        return f"{before}#{anchor})"
    after = '){width="100%"}' if before.startswith("!") else ")"
    return f"{before}{posixpath.relpath(there, posixpath.dirname(page) or '.')}{'#' + anchor if anchor else ''}{after}"


def _source(page: str) -> Path:
    """The file that the links of `page` were written in."""
    if page in ELSEWHERE:
        return ROOT / ELSEWHERE[page]
    return DOCS / (commands.SOURCE if page in commands.pages() else page)
