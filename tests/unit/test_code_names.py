"""The names of sampled code, out of real files: exact, or none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors import _code_names
from giltrace.collectors._code_names import named
from giltrace.process.elf_file import ElfFile
from giltrace.process.program_files import ProgramFiles
from giltrace.recording.code_samples import SAMPLE, CodeSamples, MappedFile
from giltrace.recording.events import NativeFunction
from giltrace.recording.perf_types import ANONYMOUS
from tests.native_hogs import build

TID = 101


def mapped(
    path: Path | str, *, inode: int | None = None, since: int | None = None, device: tuple[int, int] = (0, 27)
) -> MappedFile:
    """A file that was mapped just now."""
    real = inode if inode is not None else os.stat(path).st_ino
    return MappedFile(str(path), real, time.monotonic_ns() if since is None else since, device)


def names(files: Sequence[MappedFile], *chains: Sequence[tuple[int, int]]) -> list[NativeFunction]:
    """What samples are called whose addresses are these places in files, the innermost first."""
    rows = np.zeros(len(chains), SAMPLE)
    rows["file"], rows["tid"], rows["time"] = -1, TID, np.arange(len(chains))
    for row, chain in zip(rows, chains, strict=True):
        for at, (file, place) in enumerate(chain):
            row["file"][at], row["place"][at] = file, place
    with ProgramFiles(os.getpid()) as program:
        found = named(CodeSamples(rows, tuple(files)), program.open)
    assert found.samples["time"].tolist() == list(range(len(chains)))
    return [found.functions[number] for number in found.samples["function"].tolist()]


def symbols(library: Path, *options: str) -> dict[str, tuple[int, int]]:
    """Where in the file each function begins, and how long it is, as binutils says."""
    listed = subprocess.run(["nm", "-S", *options, str(library)], capture_output=True, text=True, check=True).stdout
    data = library.read_bytes()
    (code,) = ElfFile(lambda at, count: data[at : at + count]).loads
    found = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [tT] (\S+)$", listed, re.M)
    return {name: (int(start, 16) - code.address + code.offset, int(size, 16)) for start, size, name in found}


def test_all_of_a_function_and_nothing_beyond_has_its_name(tmp_path: Path) -> None:
    library = build(tmp_path, "plain")
    for name, (start, size) in symbols(library).items():
        chains = [[(0, place)] for place in range(start, start + size)]
        assert {one.name for one in names([mapped(library)], *chains)} == {name}


def test_without_its_symbol_a_function_has_no_name_however_near_the_next(tmp_path: Path) -> None:
    start, size = symbols(build(tmp_path, "plain"))["hidden"]
    library = build(tmp_path, "stripped")
    (nearest, length) = symbols(library, "-D")["nearest"]
    assert nearest + length <= start < nearest + length + 16
    chains = [[(0, place)] for place in range(start, start + size)]
    assert set(names([mapped(library)], *chains)) == {NativeFunction("", str(library))}


def call_site(library: Path) -> int:
    """Where `call_hidden` goes on after its first call, as a place in the file."""
    begin, size = symbols(library, "-D")["call_hidden"]
    calls = library.read_bytes()[begin : begin + size].index(b"\xe8")
    return begin + calls + 5


def test_a_caller_is_told_where_the_way_there_is_proven(tmp_path: Path) -> None:
    framed, leafless = build(tmp_path, "framed"), build(tmp_path, "leafless")
    for library, proven in ((framed, True), (leafless, False)):
        goes_on = call_site(library)
        nearest, length = symbols(library, "-D")["nearest"]
        inside = [nearest + length + offset for offset in (0, 20, 30)]
        caller = ("call_hidden", str(library))
        at_begin, later, last = names([mapped(library)], *([(0, place), (0, goes_on)] for place in inside))
        # Before the frame is set up the frame pointer is the caller's: it leads past that one.
        assert at_begin == NativeFunction("", str(library))
        assert later == last == NativeFunction("", str(library), *(caller if proven else ()))
    unknown = names([mapped(framed)], [(0, inside[1]), (-1, 0)], [(0, inside[1])], [(0, inside[1]), (0, 1)])
    assert set(unknown) == {NativeFunction("", str(framed))}


def test_a_name_is_never_replaced_by_that_of_a_caller(tmp_path: Path) -> None:
    library = build(tmp_path, "framed")
    exported, _ = symbols(library, "-D")["exported"]
    assert names([mapped(library)], [(0, exported + 9), (0, call_site(library))]) == [
        NativeFunction("exported", str(library))
    ]


def test_a_file_that_is_not_the_one_that_was_mapped_has_no_names(tmp_path: Path) -> None:
    library = build(tmp_path, "plain")
    start, _ = symbols(library)["exported"]
    before = time.monotonic_ns() - 3600 * 10**9
    device = os.stat(library).st_dev
    (good, also_good, elsewhere, replaced, changed, gone, anonymous, vdso) = names(
        [
            mapped(library),
            mapped(library, device=(os.major(device), os.minor(device))),
            mapped(library, device=(os.major(device) or 8, os.minor(device) + 1)),
            mapped(library, inode=os.stat(library).st_ino + 1),
            mapped(library, since=before),
            mapped(tmp_path / "gone.so", inode=5),
            mapped(ANONYMOUS, inode=0),
            mapped("[vdso]", inode=0),
        ],
        *([(number, start)] for number in range(8)),
    )
    assert good == also_good == NativeFunction("exported", str(library))
    assert elsewhere == (good if os.major(device) == 0 else NativeFunction("", str(library)))
    assert [one.name for one in (replaced, changed, gone, anonymous, vdso)] == [""] * 5
    assert [one.file for one in (replaced, gone, anonymous, vdso)] == [
        str(library),
        str(tmp_path / "gone.so"),
        ANONYMOUS,
        "[vdso]",
    ]
    assert names([], [(-1, 0)]) == [NativeFunction("", "")]


def test_pipes_links_and_what_is_no_library_have_no_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no library")
    (tmp_path / "link").symlink_to(build(tmp_path, "plain"))
    files = [mapped(tmp_path / name) for name in ("pipe", "text", "link")]
    assert {one.name for one in names(files, *([(number, 0x1110)] for number in range(3)))} == {""}


def test_symbols_that_the_system_keeps_apart_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(tmp_path, "plain")
    start, _ = symbols(library)["hidden"]
    data = library.read_bytes()
    name = ElfFile(lambda at, count: data[at : at + count]).build_id.hex()
    kept = tmp_path / "debug" / name[:2] / f"{name[2:]}.debug"
    kept.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(library), str(kept)], check=True)
    subprocess.run(["strip", "--strip-all", str(library)], check=True)
    assert names([mapped(library)], [(0, start)]) == [NativeFunction("", str(library))]
    monkeypatch.setattr(_code_names, "_DEBUG_FILES", str(tmp_path / "debug"))
    assert names([mapped(library)], [(0, start)]) == [NativeFunction("hidden", str(library))]
    # Another file's symbols are not believed, whatever it is called.
    other = build(tmp_path, "framed")
    shutil.copyfile(other, kept)
    assert names([mapped(library)], [(0, start)]) == [NativeFunction("", str(library))]
