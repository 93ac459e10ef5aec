"""The build hook: with a compiler libraries and a platform tag, without one a warning and a pure wheel."""

from __future__ import annotations

import ctypes
import platform
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hatchling", reason="needs hatchling, which builds the package")

import hatch_build
from giltrace import native

SOURCE = "int NAME(void) { return 42; }\n"
#: The sources that the hook knows by name or by folder.
SOURCES = ("tracer/answer.c", "tracer/clock.c", "observer/observe.c", "preload/stub.c")


class _App:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in SOURCES:
        path = tmp_path / hatch_build.SOURCES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.replace("NAME", path.stem))
    return tmp_path


def test_the_builder_takes_the_hook() -> None:
    """It runs the file as no module that can be found by its name."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    from hatchling.plugin.utils import load_plugin_from_script

    script = str(Path(hatch_build.__file__).resolve())
    assert load_plugin_from_script(script, "hatch_build", BuildHookInterface, "build_hook") is not None


def hook_for(project: Path) -> tuple[hatch_build.NativeBuildHook, _App]:
    app = _App()
    return hatch_build.NativeBuildHook(str(project), {}, None, None, str(project), "wheel", app), app  # type: ignore[arg-type]


def build(project: Path, version: str = "standard") -> tuple[dict[str, Any], list[str]]:
    hook, app = hook_for(project)
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook.initialize(version, data)
    return data, app.warnings


@pytest.mark.needs("cc")
def test_compiles_into_a_platform_wheel_for_any_python(project: Path) -> None:
    data, warnings = build(project)
    assert warnings == []
    assert data["tag"].startswith("py3-none-linux_")
    folder = project / hatch_build.BUILT
    built = {str(path.relative_to(project)): path for path in hatch_build.files_below(folder)}
    assert data["force_include"] == {str(path): name for name, path in built.items()}
    assert all(path.read_bytes()[:4] == b"\x7fELF" for path in built.values())
    machine = platform.machine()
    for name in (native.LIBRARY.name, f"observer-{machine}-{native.LIBC}.so"):
        assert (folder / name).exists()
    for name in (hatch_build.LITERAL, *hatch_build.OTHERS):
        assert (folder / "preload" / machine / name / hatch_build.STUB).exists()
    assert list(folder.parent.glob("*.tmp")) == []


@pytest.mark.needs("cc")
def test_editable_install_compiles_in_place(project: Path) -> None:
    data, _ = build(project, "editable")
    assert (project / hatch_build.BUILT / native.LIBRARY.name).exists()
    assert data["force_include"] == {}


@pytest.mark.needs("cc")
def test_what_an_earlier_build_left_goes(project: Path) -> None:
    stale = project / hatch_build.BUILT / "libgiltrace-m68k-glibc.so"
    stale.parent.mkdir()
    stale.write_bytes(b"left over")
    build(project)
    assert not stale.exists()


def test_builds_without_a_compiler(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    monkeypatch.delenv("CC", raising=False)
    stale = project / hatch_build.BUILT / native.LIBRARY.name
    stale.parent.mkdir()
    stale.write_bytes(b"left over")
    data, warnings = build(project)
    assert "tag" not in data
    assert data["pure_python"] is True
    assert not stale.exists()
    assert len(warnings) == 1
    assert "no C compiler" in warnings[0]


def test_a_compiler_for_another_machine_builds_no_tracer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "echo riscv64-linux-gnu")
    data, warnings = build(project)
    assert "tag" not in data
    assert "builds for no machine" in warnings[0]


@pytest.mark.parametrize(
    ("machine", "libc"), [("x86_64-pc-linux-gnu", "glibc"), ("aarch64-alpine-linux-musl", "musl")], ids=str
)
def test_the_compiler_says_what_it_builds_for(machine: str, libc: str) -> None:
    kind = hatch_build.kind_of(["echo", machine])
    assert kind is not None
    assert (kind.machine, kind.libc) == (machine.partition("-")[0], libc)


@pytest.mark.needs("cc")
def test_warnings_in_the_sources_fail_the_build(project: Path) -> None:
    (project / hatch_build.SOURCES / "tracer" / "bad.c").write_text("int f(int unused) { return 1; }\n")
    with pytest.raises(subprocess.CalledProcessError):
        build(project)


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh -x")
    assert hatch_build.compiler() == ["sh", "-x"]
    monkeypatch.setenv("CC", "no-such-compiler")
    assert hatch_build.compiler() is None


def test_one_wheel_for_all_machines_takes_ziglang(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook, _ = hook_for(project)
    monkeypatch.delenv("GILTRACE_TRACERS", raising=False)
    assert hook.dependencies() == []
    monkeypatch.setenv("GILTRACE_TRACERS", "all")
    (needed,) = hook.dependencies()
    assert needed.startswith("ziglang")
    asked: list[hatch_build.Kind] = []

    def pretend(root: Path, kinds: list[hatch_build.Kind]) -> list[Path]:
        asked.extend(kinds)
        return []

    monkeypatch.setattr(hatch_build, "compile_libraries", pretend)
    data, _ = build(project)
    assert {(kind.machine, kind.libc) for kind in asked} == {
        (machine, libc) for machine in ("x86_64", "aarch64") for libc in ("glibc", "musl")
    }
    targets = [kind.command[-1] for kind in asked]
    assert "x86_64-linux-gnu.2.17" in targets
    assert "aarch64-linux-musl" in targets
    tags = data["tag"].split("-")
    assert tags[:2] == ["py3", "none"]
    assert {"manylinux_2_17_x86_64", "musllinux_1_1_aarch64"} <= set(tags[2].split("."))


@pytest.mark.parametrize(("name", "form"), hatch_build.OTHERS.items(), ids=str)
def test_an_object_that_holds_nothing_is_one(name: str, form: tuple[int, int, int], tmp_path: Path) -> None:
    bits, machine, _ = form
    image = hatch_build.empty_object(*form)
    assert image[:5] == b"\x7fELF" + bytes([bits // 32])
    assert struct.unpack_from("<HH", image, 16) == (3, machine)
    wide = bits == 64
    (table,) = struct.unpack_from("<Q" if wide else "<I", image, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", image, 54 if wide else 42)
    flags = {}
    for at in range(table, table + size * count, size):
        (kind,) = struct.unpack_from("<I", image, at)
        (flags[kind],) = struct.unpack_from("<I", image, at + (4 if wide else 24))
    # Without the last, PT_GNU_STACK, or with one that is executable, the loader makes all stacks executable.
    assert {kind: flag & 1 for kind, flag in flags.items()} == {1: 0, 2: 0, 0x6474E551: 0}
    if name == platform.machine():
        path = tmp_path / "empty.so"
        path.write_bytes(image)
        ctypes.CDLL(str(path))


@pytest.mark.needs("cc")
def test_the_stub_needs_nothing(tmp_path: Path) -> None:
    """No library, no symbol of any version, no executable stack: it loads wherever its machine is."""
    (stub,) = native.FOLDER.glob(f"preload/{platform.machine()}/{platform.machine()}/*.so")
    read = subprocess.run(["readelf", "-dlW", "--dyn-syms", stub], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in read
    assert "VERNEED" not in read
    assert "(HASH)" in read
    assert "(GNU_HASH)" in read
    assert "RWE" not in read
    undefined = re.findall(r"(\w+) +DEFAULT +UND +(\w+)", read)
    assert undefined
    assert {binding for binding, _ in undefined} == {"WEAK"}
    defined = set(re.findall(r"GLOBAL +DEFAULT +\d+ +(\w+)", read))
    assert {re.sub("_self_.*", "_self", name) for name in defined} == {
        "giltrace_self",
        "prctl",
        "pthread_condattr_setclock",
        "syscall",
    }


@pytest.mark.needs("cc")
def test_a_system_call_is_handed_over_by_a_jump() -> None:
    """No frame, and the stack untouched: there may be fewer arguments than places, and the call may change stacks."""
    (stub,) = native.FOLDER.glob(f"preload/{platform.machine()}/{platform.machine()}/*.so")
    symbols = subprocess.run(["nm", "-D", stub], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^([0-9a-f]+) T syscall$", symbols, re.M)
    assert found is not None
    command = ["objdump", "-d", "--no-show-raw-insn", f"--start-address=0x{found[1]}", str(stub)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    instructions = re.findall(r"^ +[0-9a-f]+:\s+(\S+)", shown, re.M)
    leaves = next(at for at, name in enumerate(instructions) if name in ("jmp", "br"))
    assert set(instructions[:leaves]) <= {"endbr64", "cmp", "je", "jne", "hint", "bti", "b.eq", "b.ne", "adrp", "ldr"}
