"""The rules of `giltrace check` in pyproject.toml, several recordings at once, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from giltrace.cli import app
from traces.regenerate import unpack


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "project" / "out"
    folder.mkdir(parents=True)
    for name in ("single", "hog"):
        unpack(name, folder)
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def project(samples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, without rules; in out/ are the recordings single and hog."""
    monkeypatch.chdir(samples.parent)
    (samples.parent / "pyproject.toml").unlink(missing_ok=True)
    return samples.parent


Told = tuple[object, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> Told:
        with pytest.raises(SystemExit) as ended:
            app.main(words)
        out, err = capsys.readouterr()
        return ended.value.code, out, " ".join(err.split())

    return run


def rules(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(f"[tool.giltrace.check]\n{text}\n")


def test_rules_are_found_above_the_current_directory(project: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    rules(project, 'max-wait = "10ms"\nverdict-not = ["convoy", "hog"]\nmax-lost = 0\nmax-wait-share = 0.5')
    (project / "out" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    monkeypatch.chdir(project / "out")
    status, out, err = run("check", "hog")
    (project / "out" / "pyproject.toml").unlink()
    assert (status, err) == (1, "")
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "FAIL max-wait", "FAIL max-wait-share", "PASS max-lost", "PASS verdict-not", "FAIL verdict-not"
    ]  # fmt: skip


def test_options_win_over_the_file(project: Path, run: Any) -> None:
    rules(project, 'max-wait = "1ns"\nafter = "900"\nverdict = "idle"\nthread = "victim-*"')
    words = ("check", "out/hog", "--max-wait", "1m", "--verdict", "hog", "--window", "0..", "--thread", "*")
    status, out, _ = run(*words)
    assert status == 0, out
    assert "part: 1" not in out


def test_a_file_can_be_named(project: Path, run: Any) -> None:
    rules(project, 'max-wait = "1ns"')
    (project / "other.toml").write_text('[tool.giltrace.check]\nmax-wait = "1m"\n')
    assert run("check", "out/hog")[0] == 1
    assert run("check", "out/hog", "--config", "other.toml")[0] == 0
    (project / "empty.toml").write_text("")
    status, _, err = run("check", "out/hog", "--config", "empty.toml")
    assert (status, "empty.toml has no table [tool.giltrace.check]" in err) == (2, True)
    assert "cannot read gone.toml: No such file" in run("check", "out/hog", "--config", "gone.toml")[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('max_wait = "10ms"', "pyproject.toml: tool.giltrace.check has no key 'max_wait' did you mean 'max-wait'?"),
        ("xyz = 1", "pyproject.toml: tool.giltrace.check has no key 'xyz' there are: max-wait, max-wait-p99,"),
        ("max-wait = 10", "pyproject.toml: tool.giltrace.check.max-wait: '10' is no duration"),
        ('max-lost = "0"', "pyproject.toml: tool.giltrace.check.max-lost: '0' is no count"),
        ("max-lost = true", "pyproject.toml: tool.giltrace.check.max-lost: True is no count"),
        ('max-wait-share = "120%"', "pyproject.toml: tool.giltrace.check.max-wait-share: '120%' is no share"),
        ("verdict-not = [1, {}]", "pyproject.toml: tool.giltrace.check.verdict-not: {} is no text"),
        ('verdict-not = ["slow"]', "there is no verdict 'slow'"),
        ("max-wait =", "pyproject.toml is no TOML: "),
        ('thread = "io-*"', "nothing to check"),
        ("[tool.giltrace.chek]", "pyproject.toml: tool.giltrace has no key 'chek' did you mean 'check'?"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_name_and_key(
    text: str, said: str, project: Path, run: Any
) -> None:
    rules(project, text)
    status, out, err = run("check", "out/hog")
    assert (status, out) == (2, "")
    assert err.startswith(f"giltrace: error: {said}")


def test_the_tables_may_be_no_tables(project: Path, run: Any) -> None:
    (project / "pyproject.toml").write_text("[tool]\ngiltrace = 3\n")
    status, _, err = run("check", "out/hog", "--max-wait", "1s")
    assert (status, err.partition(" write")[0]) == (2, "giltrace: error: pyproject.toml: tool.giltrace is no table")


def test_several_recordings_and_the_worst_decides(project: Path, run: Any) -> None:
    status, out, err = run("check", "out/*", "out/single", "--verdict-not", "hog")
    assert (status, err) == (1, "")
    assert [line.split(": ")[:2] for line in out.splitlines()] == [
        ["out/hog.giltrace", "FAIL verdict-not"], ["out/single.giltrace", "PASS verdict-not"]
    ]  # fmt: skip
    status, out, err = run("check", "gone", "out/s*", "away/*", "--verdict-not", "hog")
    assert status == 2
    assert out.startswith("out/single.giltrace: PASS verdict-not: ")
    assert "there is no recording gone" in err
    assert "no recording fits away/*" in err
    assert run("check", "out/s*", "--verdict-not", "hog")[:2] == (0, out.removeprefix("out/single.giltrace: "))


def test_an_error_of_one_recording_is_told_with_its_name(project: Path, run: Any) -> None:
    status, out, err = run("check", "out/hog", "out/single", "--max-wait", "1m", "--thread", "hog-*")
    assert status == 2
    assert "out/hog.giltrace: PASS max-wait" in out
    assert "giltrace: error: out/single.giltrace: no thread is named hog-*" in err


@pytest.mark.parametrize("form", ["text", "json", "github", "junit", "markdown"])
def test_every_format_ends_with_the_same_status(form: str, project: Path, run: Any) -> None:
    for words, status in ((("out/single",), 0), (("out/hog",), 1), (("gone",), 2)):
        found, out, err = run("check", *words, "--verdict-not", "hog", "--format", form)
        assert found == status, out + err
        assert bool(err) == (status == 2)
        assert bool(out) == (status < 2 or form != "text")


def test_json_in_short_and_in_long(project: Path, run: Any) -> None:
    words = ("check", "out/single", "--verdict-not", "hog")
    assert json.loads(run(*words, "--json")[1]) == json.loads(run(*words, "--format", "json")[1])
    status, _, err = run(*words, "--json", "--format", "junit")
    assert (status, "--json and --format junit are two formats" in err) == (2, True)


def test_comparisons_in_markdown_and_their_status(project: Path, run: Any) -> None:
    status, out, _ = run("compare", "out/single", "out/hog", "--format", "markdown", "--fail-on", "worse")
    assert status == 1
    assert out.startswith("### giltrace compare: 5.")
    assert "times as long; hog of victim-0 new" in out.splitlines()[0]
    assert "| **" not in out
    assert run("compare", "out/hog", "out/single", "--fail-on", "worse")[0] == 0
    assert run("compare", "out/hog", "out/single", "--fail-on", "changed")[0] == 1
    status, out, _ = run("compare", "out/hog", "out/hog", "--fail-on", "changed")
    assert (status, out.splitlines()[0]) == (0, "no change beyond noise")
