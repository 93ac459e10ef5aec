"""Build hook: compiles the native tracer into the package, for wheels and editable installs alike.

The libraries have no dependency on any Python ABI, so the wheel is ``py3-none-<platform>``. With a C compiler they are
built for this machine. Without one the package still builds, as ``py3-none-any`` and without exact capture. With
``GILTRACE_TRACERS=all`` in the environment PyPI's ziglang builds them for every machine and libc, into one wheel.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("giltrace", "native")
BUILT = SOURCES / "lib"
#: What LD_PRELOAD names. A program built with gcc's AddressSanitizer refuses to run unless its runtime is the first
#: library of all, which it tells by this part of the first one's name.
STUB = "libgiltrace-before-libasan.so"

MACHINES = ("x86_64", "aarch64")
LIBCS = ("glibc", "musl")
ALL_TAG = "py3-none-" + ".".join(
    f"{base}_{machine}" for machine in MACHINES for base in ("manylinux2014", "manylinux_2_17", "musllinux_1_1")
)

#: What glibc's loader makes of $PLATFORM, by machine; musl's takes it for the name that it is.
PLATFORMS = {"x86_64": ("x86_64", "haswell", "xeon_phi"), "aarch64": ("aarch64",)}
LITERAL = "$PLATFORM"
#: 32-bit programs may run below the target too. Bits, ELF machine and flags of an object that they can load.
OTHERS = {
    **dict.fromkeys(("i386", "i486", "i586", "i686"), (32, 3, 0)),
    **dict.fromkeys(("v6l", "v7l", "v8l"), (32, 40, 0x5000000)),
    **dict.fromkeys(PLATFORMS["x86_64"], (64, 62, 0)),
    **dict.fromkeys(PLATFORMS["aarch64"], (64, 183, 0)),
}

COMPILING = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    # What the hooks call is bound when the library is loaded, not by the resolver from inside a hook.
    "-fno-plt",
    # Frames are unwound by what these write down, the library's own among them.
    "-fasynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
)
LINKING = ("-shared", "-Wl,-z,now", "-Wl,--eh-frame-hdr")
TRACER_FLAGS = {
    # The hooks read thread-local state from inside the host's lock functions: no lazy allocation there.
    "glibc": ("-ftls-model=initial-exec",),
    # musl allocates for all threads at once, and refuses that model in what is loaded later.
    "musl": ("-ftls-model=global-dynamic",),
}
#: The stub is loaded into every process, under any libc: nothing may be asked of it.
STUB_COMPILING = ("-ffreestanding", "-fno-stack-protector")
#: Small and in few pieces: half of what it costs a program is the mapping of them.
STUB_LINKING = ("-nostdlib", "-Wl,--hash-style=both", "-Wl,-s", "-Wl,-z,norelro")
LIBRARIES = ("-ldl", "-lpthread")


class Kind(NamedTuple):
    """One kind of process: its `machine` and `libc`, and the compiler's `command` for it."""

    machine: str
    libc: str
    command: tuple[str, ...]

    @property
    def is_zig(self) -> bool:
        """Whether the command is ziglang's."""
        return "ziglang" in self.command


def compiler() -> list[str] | None:
    """Return the C compiler's command (``$CC``, else ``cc``), or None if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else None


def kind_of(command: Sequence[str]) -> Kind | None:
    """Return what a compiler builds for; None if that is nothing that can be traced."""
    asked = subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    machine = asked.partition("-")[0]
    if machine not in MACHINES or "linux" not in asked:
        return None
    return Kind(machine, "musl" if "musl" in asked else "glibc", tuple(command))


def all_kinds() -> list[Kind]:
    """Return every kind, each with ziglang's compiler for the oldest libc that the wheel's tag promises."""
    zig = (sys.executable, "-m", "ziglang", "cc", "-target")
    suffix = {"glibc": "gnu.2.17", "musl": "musl"}
    return [Kind(m, libc, (*zig, f"{m}-linux-{suffix[libc]}")) for m in MACHINES for libc in LIBCS]


def wants_all() -> bool:
    """Whether one wheel for every machine and libc is asked for."""
    return os.environ.get("GILTRACE_TRACERS") == "all"


def empty_object(bits: int, machine: int, flags: int) -> bytes:
    """Return a shared object for another kind of machine that holds nothing: its loader takes it and is content."""
    word, word_size, symbol_size = ("I", 4, 16) if bits == 32 else ("Q", 8, 24)
    head_size, segment_size, segment_count = (52, 32, 3) if bits == 32 else (64, 56, 3)
    symbols = head_size + segment_count * segment_size
    strings, hashes, dynamic = symbols + symbol_size, symbols + symbol_size + 8, symbols + symbol_size + 32
    # DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT: one symbol that is none, and its empty name.
    entries = [(4, hashes), (5, strings), (6, symbols), (10, 1), (11, symbol_size), (0, 0)]
    body = bytes(symbol_size + 8) + struct.pack("<4I", 1, 1, 0, 0) + bytes(8)
    body += b"".join(struct.pack("<2" + word, *entry) for entry in entries)
    # PT_LOAD, PT_DYNAMIC, and PT_GNU_STACK, without which stacks become executable; the alignment suits any page size.
    segments = [
        (1, 0, symbols + len(body), 65536),
        (2, dynamic, 2 * word_size * len(entries), word_size),
        (0x6474E551, 0, 0, 16),
    ]
    head = struct.pack("<4s5B7x2HI3" + word, b"\x7fELF", bits // 32, 1, 1, 0, 0, 3, machine, 1, 0, head_size, 0)
    head += struct.pack("<I6H", flags, head_size, segment_size, segment_count, 0, 0, 0)
    for kind, at, size, alignment in segments:
        if bits == 32:
            head += struct.pack("<8I", kind, at, at, at, size, size, 6, alignment)
        else:
            head += struct.pack("<2I6Q", kind, 6, at, at, at, size, size, alignment)
    return head + body


def build_id(root: Path) -> str:
    """Return a name for what the sources are now."""
    sources = sorted(p for p in (root / SOURCES).rglob("*.[chS]"))
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in sources)).hexdigest()[:12]


class Build:
    """Compiles the sources below `root` for `kinds` into the folder `out`.

    Raises `subprocess.CalledProcessError` where the compiler refuses them; its own words are on stderr.
    """

    def __init__(self, root: Path, out: Path) -> None:
        self._root, self._out = root, out
        self._self = f"-DGILTRACE_SELF=giltrace_self_{build_id(root)}"

    def libraries(self, kind: Kind) -> None:
        """Build the tracer, and what the recorder observes with where it is itself of this kind."""
        tracer = self._sources("tracer", "*.[cS]")
        # ziglang adds what describes its own libraries to debuggers.
        libraries = [*LIBRARIES, *(["-Wl,--strip-debug"] if kind.is_zig else [])]
        flags = [*TRACER_FLAGS[kind.libc], *libraries]
        self._library(kind, tracer, f"libgiltrace-{kind.machine}-{kind.libc}.so", flags)
        self._library(kind, self._sources("observer"), f"observer-{kind.machine}-{kind.libc}.so", libraries)

    def preloads(self, kinds: Sequence[Kind]) -> None:
        """Build the stubs, and for each machine that a recorder may run on the folder that it preloads them from."""
        stubs = {kind.machine: self._stub(kind) for kind in kinds if kind.libc == LIBCS[0] or len(kinds) == 1}
        for machine, own in stubs.items():
            folder = self._out / "preload" / machine
            images = {name: empty_object(*form) for name, form in OTHERS.items()}
            images |= {name: stub for other, stub in stubs.items() for name in PLATFORMS[other]}
            for name, image in {**images, LITERAL: own}.items():
                (folder / name).mkdir(parents=True)
                (folder / name / STUB).write_bytes(image)

    def _stub(self, kind: Kind) -> bytes:
        hardened = "-fcf-protection" if kind.machine == "x86_64" else "-mbranch-protection=standard"
        # In two steps: without the libraries, ziglang would leave out their headers too.
        sources = self._sources("preload", "*.[cS]")
        objects = [self._out / f"{path.stem}.o" for path in sources]
        for source, into in zip(sources, objects, strict=True):
            self._run(kind, [*COMPILING, *STUB_COMPILING, hardened, self._self, "-c", str(source), "-o", str(into)])
        image = self._out / "stub.tmp"
        layout = [] if kind.is_zig else ["-Wl,-z,noseparate-code"]
        self._run(kind, [*LINKING, *STUB_LINKING, *layout, *map(str, objects), "-o", str(image)])
        content = image.read_bytes()
        for path in (*objects, image):
            path.unlink()
        return content

    def _sources(self, folder: str, name: str = "*.c") -> list[Path]:
        return sorted(p.relative_to(self._root) for p in (self._root / SOURCES).glob(f"{folder}/{name}"))

    def _library(self, kind: Kind, sources: Sequence[Path], name: str, flags: Sequence[str]) -> None:
        into = ["-o", str(self._out / name)]
        self._run(kind, [*COMPILING, *LINKING, self._self, *map(str, sources), *into, *flags])

    def _run(self, kind: Kind, arguments: Sequence[str]) -> None:
        subprocess.run([*kind.command, *arguments], cwd=self._root, check=True)


def compile_libraries(root: Path, kinds: Sequence[Kind]) -> list[Path]:
    """Compile everything for `kinds` and return the paths of the files, below `root`."""
    # Built aside and renamed: a process that has an old library mapped keeps the old one.
    scratch = root / BUILT.with_name(f"lib.{os.getpid()}.tmp")
    scratch.mkdir(parents=True)
    try:
        build = Build(root, scratch)
        for kind in kinds:
            build.libraries(kind)
        build.preloads(kinds)
        built = [p.relative_to(scratch) for p in files_below(scratch)]
        for path in built:
            (root / BUILT / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / path).replace(root / BUILT / path)
    finally:
        shutil.rmtree(scratch)
    for stale in {p.relative_to(root / BUILT) for p in files_below(root / BUILT)}.difference(built):
        (root / BUILT / stale).unlink()
    return [BUILT / path for path in built]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder`."""
    return (p for p in sorted(folder.rglob("*")) if p.is_file())


class NativeBuildHook(BuildHookInterface[Any]):
    """Compiles before the files are collected and sets the wheel's tag accordingly."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build needs besides hatchling (see hatchling's interface)."""
        return ["ziglang>=0.13"] if wants_all() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, add the libraries to the wheel, and tag it for where they run (see hatchling's interface)."""
        root = Path(self.root)
        kinds = all_kinds() if wants_all() else self._local_kinds()
        if not kinds:
            # Libraries left over from an earlier build may be stale, or for another machine.
            shutil.rmtree(root / BUILT, ignore_errors=True)
            return
        built = compile_libraries(root, kinds)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = ALL_TAG if wants_all() else f"py3-none-{platform}"
        if version != "editable":
            # Git ignores the libraries, so the builder would leave them out. An editable install reads them in place.
            build_data["force_include"].update({str(root / path): path.as_posix() for path in built})

    def _local_kinds(self) -> list[Kind]:
        command = compiler()
        if command is None:
            self.app.display_warning(
                "giltrace: no C compiler found ($CC or cc): built without the native tracer, so exact capture "
                "will be missing. Install one (e.g. `apt-get install gcc`) and install giltrace again."
            )
            return []
        kind = kind_of(command)
        if kind is None:
            self.app.display_warning(
                f"giltrace: {command[0]} builds for no machine that exact capture is made for (Linux on x86-64 and "
                "aarch64): built without the native tracer."
            )
            return []
        return [kind]
