"""The command that adds to this giltrace, or builds it again, is the one of what installed it."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from giltrace import installation, native
from giltrace.cli import app
from giltrace.collectors.gil import GilCollector
from giltrace.errors import TargetError

EXTRAS = ["pyarrow>=14; extra == 'parquet'", 'pandas>=2 ; extra == "pandas"', "numpy>=1.24"]


class Installed:
    """A distribution as `importlib.metadata` finds it, with this `direct_url.json`."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


class Place:
    """Pretends that giltrace was installed in `folder`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.python = str(folder / "bin" / "python")
        patch.setattr(sys, "prefix", str(folder))
        patch.setattr(sys, "executable", self.python)
        patch.setattr(metadata, "requires", lambda name: EXTRAS)
        self.came_from(None)

    def came_from(self, origin: dict[str, object] | None) -> None:
        self._patch.setattr(metadata, "distribution", lambda name: Installed(origin))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_a_virtual_environment(place: Place) -> None:
    pip = f"{place.python} -m pip install"
    assert installation.with_extra("parquet") == f"{pip} 'giltrace[parquet]'"
    assert installation.with_package("py-spy") == f"{pip} py-spy"
    assert installation.again() == f"{pip} --force-reinstall --no-deps --no-cache-dir giltrace"
    place.came_from({"url": "file:///a%20b/giltrace", "dir_info": {}})
    assert installation.again() == f"{pip} --force-reinstall --no-deps '/a b/giltrace'"
    place.came_from({"url": "https://x/giltrace.git", "vcs_info": {"vcs": "git", "commit_id": "1"}})
    assert installation.again() == f"{pip} --force-reinstall --no-deps git+https://x/giltrace.git"


def test_a_checkout(place: Place) -> None:
    place.came_from({"url": "file:///src/giltrace", "dir_info": {"editable": True}})
    assert installation.with_extra("pandas") == f"{place.python} -m pip install -e '/src/giltrace[pandas]'"
    assert installation.again() == f"{place.python} -m pip install -e /src/giltrace"


def test_an_environment_of_uvs_has_no_pip(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert installation.with_package("py-spy") == f"uv pip install --python {place.python} py-spy"


def test_pipx(place: Place) -> None:
    (place.folder / "pipx_metadata.json").write_text("{}")
    assert installation.with_extra("parquet") == "pipx inject giltrace 'pyarrow>=14'"
    assert installation.with_package("wasmtime") == "pipx inject giltrace wasmtime"
    assert installation.again() == "pipx reinstall giltrace"


def test_a_tool_of_uvs_keeps_what_it_has(place: Place) -> None:
    receipt = place.folder / "uv-receipt.toml"
    receipt.write_text(
        '[tool]\nrequirements = [{ name = "giltrace", directory = "/src/giltrace" },'
        ' { name = "pandas", specifier = ">=2" }]\n'
    )
    kept = "--with 'pandas>=2'"
    assert installation.with_extra("parquet") == f"uv tool install {kept} --with 'pyarrow>=14' /src/giltrace"
    assert installation.with_extra("pandas") == f"uv tool install {kept} /src/giltrace"
    assert installation.again() == f"uv tool install --reinstall {kept} /src/giltrace"
    receipt.write_text('[tool]\nrequirements = [{ name = "giltrace", editable = "/src/giltrace" }]\n')
    assert installation.with_package("py-spy") == "uv tool install --editable --with py-spy /src/giltrace"
    receipt.write_text("no TOML")
    assert installation.with_package("py-spy") == "uv tool install --with py-spy giltrace"


@pytest.mark.parametrize("origin", [None, {}, {"url": "file:///x"}, {"url": 3, "dir_info": {}}])
def test_what_is_odd_gives_a_command_all_the_same(origin: dict[str, object] | None, place: Place) -> None:
    place.came_from(origin)
    assert shlex.split(installation.again())[:4] == [place.python, "-m", "pip", "install"]


def test_the_extras_are_known_by_the_metadata_of_this_very_giltrace() -> None:
    assert installation._needed("parquet") == ["pyarrow>=14"]
    assert installation._needed("nonsense") == ["giltrace[nonsense]"]


@pytest.fixture
def unbuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path / "lib")
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "lib" / native.LIBRARY.name)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("words", [["record", "-c", "open('ran', 'w')"], ["top", "--once", "-c", "open('ran', 'w')"]])
def test_without_a_tracer_nothing_is_started(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app.main(words)
    assert ended.value.code == 2
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"giltrace: error: {installation.UNBUILT}"
    assert second.strip() == installation.how_to_build()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unbuilt")
def test_the_collector_says_so_in_one_line() -> None:
    assert GilCollector().available(None) == f"{installation.UNBUILT}: {installation.how_to_build()}"
    with pytest.raises(TargetError):
        GilCollector().refuse()


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("words", [[], ["--help"], ["-V"]], ids=str)
def test_one_who_looks_at_it_is_warned(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.main(words)
    assert f"giltrace: warning: {installation.UNBUILT}\n  install" in capsys.readouterr().err


def test_one_who_has_a_tracer_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.main(["--help"])
    assert capsys.readouterr().err == ""


def test_all_advice_on_installing_comes_from_here() -> None:
    """Elsewhere it would not know how this giltrace was installed; viztracer is for the target's interpreter."""
    package = Path(installation.__file__).parent
    files = [path for path in package.rglob("*.py") if path.name != "installation.py"]
    found = {str(path.relative_to(package)) for path in files if "pip install" in path.read_text()}
    assert found == {"collectors/viztracer.py"}
