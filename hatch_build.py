"""Build hook: compiles the native tracer into the package, for wheels and editable installs alike.

The library has no dependency on any Python ABI, so the wheel is ``py3-none-<platform>``. Without a C
compiler the package still builds, as ``py3-none-any`` and without exact capture.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("giltrace", "native")
LIBRARY = SOURCES / "libgiltrace.so"
FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    # The hooks read thread-local state from inside the host's lock functions: no lazy allocation there.
    "-ftls-model=initial-exec",
    # What the hooks call is bound when the library is loaded, not by the resolver from inside a hook.
    "-fno-plt",
    "-Wl,-z,now",
    # The unwinder that tells forced releases from voluntary ones comes along.
    "-static-libgcc",
    "-Wall",
    "-Wextra",
    "-Werror",
)
LIBRARIES = ("-ldl", "-lpthread")


def compiler() -> list[str] | None:
    """Return the C compiler's command (``$CC``, else ``cc``), or None if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else None


def compile_library(root: Path, command: list[str]) -> Path:
    """Compile ``giltrace/native/**/*.c`` below `root` into the shared library and return its path.

    Raises:
        subprocess.CalledProcessError: the compiler refused the sources; its own words are on stderr.
    """
    sources = sorted(str(p.relative_to(root)) for p in (root / SOURCES).rglob("*.c"))
    # Built aside and renamed: a process that has the old library mapped keeps the old one.
    scratch = LIBRARY.with_suffix(f".{os.getpid()}.tmp")
    try:
        subprocess.run([*command, *FLAGS, *sources, "-o", str(scratch), *LIBRARIES], cwd=root, check=True)
        (root / scratch).replace(root / LIBRARY)
    finally:
        (root / scratch).unlink(missing_ok=True)
    return root / LIBRARY


class NativeBuildHook(BuildHookInterface[Any]):
    """Compiles before the files are collected and sets the wheel's tag accordingly."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, add the library to the wheel, and tag it for this platform (see hatchling's interface)."""
        root = Path(self.root)
        command = compiler()
        if command is None:
            # A library left over from an earlier build may be stale, or for another machine.
            (root / LIBRARY).unlink(missing_ok=True)
            self.app.display_warning(
                "giltrace: no C compiler found ($CC or cc): built without the native tracer, so exact capture "
                "will be missing. Install one (e.g. `apt-get install gcc`) and install giltrace again."
            )
            return
        compile_library(root, command)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version != "editable":
            # Git ignores the library, so the builder would leave it out. An editable install reads it in place.
            build_data["force_include"][str(root / LIBRARY)] = LIBRARY.as_posix()
