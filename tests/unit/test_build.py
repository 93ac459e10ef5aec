"""The build hook: with a compiler a library and a platform tag, without one a warning and a pure wheel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hatchling", reason="needs hatchling, which builds the package")

import hatch_build

SOURCE = "int answer(void) { return 42; }\n"


class _App:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / hatch_build.SOURCES
    folder.mkdir(parents=True)
    (folder / "answer.c").write_text(SOURCE)
    return tmp_path


def build(project: Path, version: str = "standard") -> tuple[dict[str, Any], list[str]]:
    app = _App()
    hook = hatch_build.NativeBuildHook(str(project), {}, None, None, str(project), "wheel", app)  # type: ignore[arg-type]
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook.initialize(version, data)
    return data, app.warnings


@pytest.mark.needs("cc")
def test_compiles_into_a_platform_wheel_for_any_python(project: Path) -> None:
    data, warnings = build(project)
    assert warnings == []
    assert data["tag"].startswith("py3-none-linux_")
    library = project / hatch_build.LIBRARY
    assert library.read_bytes()[:4] == b"\x7fELF"
    assert data["force_include"] == {str(library): "giltrace/native/libgiltrace.so"}
    assert [p.name for p in library.parent.iterdir() if p.suffix == ".tmp"] == []


@pytest.mark.needs("cc")
def test_editable_install_compiles_in_place(project: Path) -> None:
    data, _ = build(project, "editable")
    assert (project / hatch_build.LIBRARY).exists()
    assert data["force_include"] == {}


def test_builds_without_a_compiler(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.delenv("CC", raising=False)
    stale = project / hatch_build.LIBRARY
    stale.write_bytes(b"left over")
    data, warnings = build(project)
    assert "tag" not in data
    assert data["pure_python"] is True
    assert not stale.exists()
    assert len(warnings) == 1
    assert "no C compiler" in warnings[0]


@pytest.mark.needs("cc")
def test_warnings_in_the_sources_fail_the_build(project: Path) -> None:
    (project / hatch_build.SOURCES / "bad.c").write_text("int f(int unused) { return 1; }\n")
    with pytest.raises(subprocess.CalledProcessError):
        build(project)


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh -x")
    assert hatch_build.compiler() == ["sh", "-x"]
    monkeypatch.setenv("CC", "no-such-compiler")
    assert hatch_build.compiler() is None
