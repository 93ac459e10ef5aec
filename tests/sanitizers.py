"""The tracer built under gcc's sanitizers, and how a program runs under such a build.

Run as a program: ``python -m tests.sanitizers asan|tsan [WORDS]`` runs tests, with a tracer so built in a copy of the
checkout; the words go to pytest. It ends with status 1 if a test failed, or if the sanitizer found anything.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from giltrace import native

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "giltrace" / "native"
HOST = ROOT / "tests" / "targets" / "gil_host.c"

#: What to give to -fsanitize=, by the name of the runtime library.
KINDS = {"asan": "address,undefined", "tsan": "thread"}

#: The variable that names the runtime library which is to be the first to be loaded into what tests start.
PRELOAD = "GILTRACE_TEST_PRELOAD"

# TSan takes leave of a thread in the last round of destructors, which is the tracer's too: it must come one before.
_ROUNDS = """
#include <limits.h>
#undef PTHREAD_DESTRUCTOR_ITERATIONS
#define PTHREAD_DESTRUCTOR_ITERATIONS 3
"""
_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-Wno-tsan")
_LIBRARY_FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden", "-ftls-model=initial-exec"),
    "-static-libgcc",
)


@functools.cache
def available() -> bool:
    """Whether the compiler has the runtime libraries."""
    return shutil.which("cc") is not None and all(_runtime(kind).is_absolute() for kind in KINDS)


def in_use() -> str | None:
    """Which of KINDS the tests run under, None for none."""
    preloaded = os.environ.get(PRELOAD, "")
    return next((kind for kind in KINDS if f"lib{kind}" in preloaded), None)


def _runtime(kind: str) -> Path:
    asked = ["cc", f"-print-file-name=lib{kind}.so"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())


def options(kind: str, report: Path) -> dict[str, str]:
    """The variables that let the sanitizers write into files that begin with `report`, and change nothing else."""
    common = f"log_path={report}:halt_on_error={int(kind != 'tsan')}:print_stacktrace=1"
    common += ":handle_segv=0:handle_sigbus=0:handle_abort=0"
    return {
        # Python itself leaks as it likes.
        "ASAN_OPTIONS": f"{common}:detect_leaks=0",
        "UBSAN_OPTIONS": common,
        "TSAN_OPTIONS": f"{common}:die_after_fork=0",
    }


@dataclass(frozen=True)
class Build:
    """The tracer and `tests/targets/gil_host.c` under one of KINDS, in a folder of their own."""

    kind: str
    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "libgiltrace.so"

    @property
    def host(self) -> Path:
        return self.folder / "host"

    def compile(self) -> None:
        rounds = self.folder / "rounds.h"
        rounds.write_text(_ROUNDS if self.kind == "tsan" else "")
        # All but the stub, which is to do without any library.
        sources = sorted(path for path in SOURCES.rglob("*.[cS]") if path.parent.name != "preload")
        self._cc(self.library, *_LIBRARY_FLAGS, "-include", rounds, *sources)
        self._cc(self.host, "-std=gnu11", "-rdynamic", HOST)

    def _cc(self, out: Path, *words: str | Path) -> None:
        command = ["cc", f"-fsanitize={KINDS[self.kind]}", *_FLAGS, *words, "-o", out, "-ldl", "-lpthread"]
        subprocess.run(command, check=True, timeout=100)

    def run(
        self, command: Sequence[str | Path], scratch: Path, preload: tuple[Path, ...] = (), **variables: str
    ) -> str:
        """Run `command` with the runtime in front of `preload`; it must end well, and nobody may have been told on.

        Returns what it printed.
        """
        preloaded = " ".join(map(str, (_runtime(self.kind), *preload)))
        environment = os.environ | options(self.kind, scratch / "report") | {"LD_PRELOAD": preloaded} | variables
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
        told = [path.read_text() for path in sorted(scratch.glob("report.*"))]
        told += [ran.stderr] * ("runtime error:" in ran.stderr)  # as UBSan says beside ASan
        assert told == [], "\n".join(told)
        assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
        return ran.stdout


def main(kind: str, words: Sequence[str]) -> int:
    """Run the tests that `words` choose with the tracer built under `kind` and return the status to end with."""
    with tempfile.TemporaryDirectory(prefix="giltrace-sanitized-") as scratch:
        copy, report = Path(scratch, "copy"), Path(scratch, "report")
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "traces", "__pycache__"), symlinks=True
        )
        build = Build(kind, Path(scratch))
        build.compile()
        build.library.replace(copy / native.LIBRARY.relative_to(ROOT))
        # The runtime is to be the first library of all, here and in what tests start with a preload of their own.
        runtime = str(_runtime(kind))
        first = {"PYTHONPATH": str(copy), "LD_PRELOAD": runtime, PRELOAD: runtime}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
        ran = subprocess.run(command, cwd=copy, env=os.environ | options(kind, report) | first, check=False)
        told = [path.read_text() for path in sorted(report.parent.glob("report.*"))]
    print("\n".join([*told, f"sanitizers: {len(told)} processes were told on by {kind}"]))
    return 1 if told else ran.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
