"""Does every bundled workload get the verdict of its header, each time? Exits with 1 if one did not.

python benchmarks/verdicts.py [--runs 20] [--python PATH] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from giltrace.launch.bundled import bundled
from giltrace.timeline.load import load
from tests.truth import Truth, measure, truths


def verdict_of(name: str, truth: Truth, python: str) -> str:
    """Record a workload once and return the verdict on the process that its header speaks of."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, name)
        command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", python, "-o", str(output), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} ended with status {done.returncode}:\n{done.stderr}")
        return str(measure(truth, load(output.with_name(f"{name}.giltrace"))))


def main() -> None:
    """Record each workload so many times, print what it was called, and judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help="default: all bundled ones")
    parser.add_argument("--runs", type=int, default=20, help="recordings of each (default: %(default)s)")
    parser.add_argument("--python", default=sys.executable, help="interpreter to trace (default: this one)")
    options = parser.parse_args()
    known = bundled()
    unknown = set(options.names) - known.keys()
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    wrong = 0
    for name in options.names or known:
        for truth in truths(known[name]):
            if truth.metric != "verdict":
                continue
            told = Counter(verdict_of(name, truth, options.python) for _ in range(options.runs))
            right = told.pop(str(truth.value), 0)
            wrong += options.runs - right
            others = "".join(f", {kind} {count}" for kind, count in told.items())
            # At once: a run of all takes minutes.
            print(f"{name:20} {truth.value:22} {right}/{options.runs}{others}", flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
