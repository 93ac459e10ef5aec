"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.tracing import TARGETS, traced_environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pytest.md"
#: Lies in the folder of each run, where only its name finds it.
WATCHED = TARGETS / "watched_tests.py"


def run(
    folder: Path, *arguments: str | Path, env: dict[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[str], dict[str, ElementTree.Element]]:
    """Run pytest in an empty folder: what it said, and its tests by name."""
    shutil.copy(WATCHED, folder)
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder]
    command += ["-c", "/dev/null", "-W", "error", "--junitxml", folder / "junit.xml", *arguments]
    env = {**(env or os.environ), "TMPDIR": str(temporary), "COLUMNS": "200"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=folder, env=env)
    found: dict[str, ElementTree.Element] = {}
    if (folder / "junit.xml").exists():
        found = {case.attrib["name"]: case for case in ElementTree.parse(folder / "junit.xml").iter("testcase")}
    assert list(temporary.glob("giltrace-*")) == []
    return ran, found


def outcome(case: ElementTree.Element) -> str:
    return {"failure": "failed", "error": "error", "skipped": "skipped"}.get(
        next((child.tag for child in case if child.tag != "properties"), ""), "passed"
    )


def message(case: ElementTree.Element) -> str:
    (failure,) = (child for child in case if child.tag in ("failure", "error"))
    return failure.attrib["message"]


def properties(case: ElementTree.Element) -> dict[str, str]:
    return {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}


def assert_as_named(ran: subprocess.CompletedProcess[str], found: dict[str, ElementTree.Element]) -> None:
    assert len(found) > 30, ran.stdout + ran.stderr
    wrong = {name: outcome(case) for name, case in found.items() if outcome(case) not in name and "wrong" not in name}
    assert wrong == {}, ran.stdout


@pytest.mark.parametrize("options", [(), ("--giltrace", "-n2")], ids=["plain", "told-xdist"])
def test_every_test_has_its_outcome(options: tuple[str, ...], tmp_path: Path) -> None:
    ran, found = run(tmp_path, WATCHED.name, "--timeout=100", *options)
    assert_as_named(ran, found)
    line = message(found["test_the_line_that_held_it_failed"])
    assert re.search(r"^AssertionError: watched_tests\.backtrack was without the GIL for 0\.0% of its [\d.]+ ms", line)
    assert re.search(r"longest hold: [\d.]+ m?s in `(re\.match\(|return re\.match\().* in backtrack \(/.*:\d+\)", line)
    assert "longest hold:" in message(found["test_a_builtin_by_name_failed"])
    held = message(found["test_holds_it_failed"])
    assert re.search(r"test_holds_it_failed held the GIL for [\d.]+ m?s at a time; max_hold is 5\.00 ms", held)
    assert "re.match(" in held
    waited = message(found["test_waits_failed"])
    assert re.search(r"waited [\d.]+ m?s for the GIL; max_wait is 3\.00 ms\s+for hog in `json\.loads\(TEXT\)`", waited)
    assert "KeyError" in message(found["test_its_own_outcome_counts_failed"])
    refused = message(found["test_a_wrong_mark_of_parameters[1]"])
    assert "@pytest.mark.gil(max_hold=5): 5 is no duration" in refused
    if options:
        told = properties(found["test_threads_that_wait_passed"])
        assert float(told["giltrace_longest_wait_ms"]) > 3
        # xdist's own thread waits too.
        longest = r"^(its own|another) thread waited for backtracker in `.*re\.match\("
        assert re.search(longest, told["giltrace_longest_wait"])
        assert float(properties(found["test_nested_passed"])["giltrace_releases"]) < 1
        assert re.search(r"^threads waited for the GIL in \d+ of \d+ tests; most in these:$", ran.stdout, re.M)
        assert "watched_tests.py::test_threads_that_wait_passed" in ran.stdout.partition("= GIL =")[2]
    else:
        assert not any(properties(case) for case in found.values())
        assert "= GIL =" not in ran.stdout


def test_works_where_giltrace_records_already(tmp_path: Path) -> None:
    (tmp_path / "recording").mkdir()
    chosen = ("-k", "hog or nested or holds_it or computes or line", "--giltrace")
    ran, found = run(tmp_path, WATCHED.name, *chosen, env=traced_environment(tmp_path / "recording"))
    assert len(found) >= 6, ran.stdout + ran.stderr
    assert {name for name, case in found.items() if outcome(case) not in name} == set(), ran.stdout


@pytest.mark.parametrize("options", [(), ("-n2",)], ids=["plain", "xdist"])
def test_a_wrong_mark_is_told_at_collection(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(
        'import pytest\n\n@pytest.mark.gil(max_hold="5 apples")\ndef test_a():\n    pass\n'
    )
    ran, _ = run(tmp_path, "test_wrong.py", *options)
    told = "test_wrong.py::test_a: @pytest.mark.gil(max_hold='5 apples'): '5 apples' is no duration: write a number and"
    assert sum(line.startswith(told) for line in ran.stdout.splitlines()) == 1, ran.stdout
    assert "Traceback" not in ran.stdout
    assert ran.returncode != 0


def test_without_waits_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_quiet.py").write_text("def test_a():\n    pass\n")
    ran, _ = run(tmp_path, "--giltrace")
    assert "in none of 1 tests did a thread wait for the GIL" in ran.stdout


def test_a_run_that_does_not_use_it_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_imports.py").write_text(
        "import sys\n\ndef test_a():\n"
        "    names = {m for m in sys.modules if m.startswith('giltrace') or m == 'numpy'}\n"
        "    assert names == {'giltrace', 'giltrace.integrations', 'giltrace.integrations.pytest'}\n"
    )
    ran, found = run(tmp_path)
    assert outcome(found["test_a"]) == "passed", ran.stdout
    (one,) = entry_points(group="pytest11", name="giltrace")
    assert one.value == "giltrace.integrations.pytest"


def test_the_examples_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "test_app.py").write_text("\n\n".join(examples))
    _, found = run(tmp_path, "test_app.py")
    assert {name: outcome(case) for name, case in found.items()} == {
        "test_compresses_without_the_gil": "passed",
        "test_parses_without_the_gil": "failed",
        "test_answers_soon": "failed",
        "test_loads_its_model": "passed",
    }
    assert "longest hold: " in message(found["test_parses_without_the_gil"])
    assert "in `json.loads(TEXT)` in test_answers_soon" in message(found["test_answers_soon"])
