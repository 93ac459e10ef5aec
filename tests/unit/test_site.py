"""The documentation's site: complete, without broken links, and content with its own server."""

from __future__ import annotations

import re
from html import unescape
from importlib import util
from pathlib import Path

import pytest

from giltrace.cli.app import COMMANDS, Command
from giltrace.launch.bundled import bundled

pytestmark = pytest.mark.skipif(
    any(util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="needs the extra `docs`: pip install 'giltrace[docs]'",
)

#: What makes a browser fetch something, as opposed to a link that a person may follow.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc="([^"]*)\""""
    r"""|<link\b(?![^>]*rel="(?:canonical|search)")[^>]*?\bhref="([^"]*)\""""
    r"""|url\(["']?([^"')]+)|@import\s+["']([^"']+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from docs.site.__main__ import build

    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == 0
    return folder


def text_of(page: Path) -> str:
    """The page's text, without markup, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))).split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_its_page_with_all_its_options(site: Path, command: Command) -> None:
    import typer

    from giltrace.cli.app import application

    text = text_of(site / "commands" / f"{command.name}.html")
    assert command.summary.rstrip(".") in text_of(site / "commands.html")
    group = typer.main.get_command(application([command.name]))
    parameters = group.commands[command.name].params  # type: ignore[attr-defined]
    options = [word for parameter in parameters for word in parameter.opts if word.startswith("-")]
    assert [word for word in [f"giltrace {command.name}", *options] if word not in text] == []


def test_what_is_explained_by_hand_is_on_the_commands_pages(site: Path) -> None:
    from docs.site.pages import DOCS

    titles = re.findall(r"^\| `(--[\w-]+)", (DOCS / "commands.md").read_text(), re.M)
    pages = " ".join(text_of(page) for page in (site / "commands").glob("*.html"))
    assert titles
    assert [title for title in titles if title not in pages] == []


def test_every_workload_is_in_the_gallery_with_picture_verdict_and_reading(site: Path) -> None:
    page = (site / "gallery.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r"<h2>(\w+)<a (.*?)</section>", page, re.S))
    assert list(sections) == list(bundled())
    for name, section in sections.items():
        assert f'href="_images/{name}.png"><img' in section
        assert "<blockquote>" in section
        assert "What to look for." in section


def test_pictures_are_small_and_all_are_shown(site: Path) -> None:
    from docs.site.pages import DOCS
    from docs.site.pictures import LARGEST

    pictures = {path.name: path.stat().st_size for path in (DOCS / "pictures").iterdir()}
    assert set(pictures) == {path.name for path in (site / "_images").iterdir()}
    assert max(pictures.values()) <= LARGEST


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    found = {"".join(groups) for file in files for groups in _FETCHED.findall(file.read_text(encoding="utf-8"))}
    assert len(found) > 10
    assert {address for address in found if re.match(r"(?:\w+:)?//", address)} == set()


@pytest.mark.parametrize("broken", ["[x](gone.md)", "[x](#gone)", "[x](other.md#gone)", "![x](gone.png)"])
def test_what_leads_nowhere_fails_the_build(tmp_path: Path, broken: str, capfd: pytest.CaptureFixture[str]) -> None:
    from docs.site.__main__ import render

    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "other.md").write_text("# Other\n")
    tree = "\n```{toctree}\nother.md\n```\n"
    for text, status in (("[x](other.md#other)", 0), (broken, 1)):
        (tmp_path / "sources" / "index.md").write_text(f"# A\n\n{text}\n{tree}")
        assert render(tmp_path / "sources", tmp_path / "site") == status
    assert "gone" in capfd.readouterr().err
