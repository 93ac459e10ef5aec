"""Four threads import modules that nobody compiled yet: imports in threads start a program no faster.

Reading a module's file is done without the GIL, but compiling it and running its top level need it; many modules
build tables or classes there. So the threads take turns, as counting threads do.

What to look for: blame names the top level of the modules and `importlib` on both sides. While a module is compiled the
GIL is kept for as long as that takes, since the compiler is C code. Some gaps are no I/O but importlib's own lock,
which all imports of a process pass through.

Truth: verdict = cpu-bound-contention
Truth: held_share >= 0.6
Truth: wait_share(import-*) >= 0.3
Truth: handoffs >= 30
Truth: off_running_cores <= 0.3
"""

import argparse
import importlib
import os
import sys
import tempfile
import threading
import time

TABLE = """
TABLE = {}
for number in range(%d):
    TABLE[number %% 1000] = number * number
"""


def write(folder, number, size):
    """Write `number` modules that each write `size` entries into a table; return their names."""
    functions = "".join("def f%d(a, b=2):\n    return a * b\n" % index for index in range(20))
    for index in range(number):
        with open(os.path.join(folder, "storm_%d.py" % index), "w") as file:
            file.write(functions + TABLE % size)
    return ["storm_%d" % index for index in range(number)]


def load(names):
    """Import each of the modules."""
    for name in names:
        importlib.import_module(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--modules", type=int, default=40, help="in all (default: %(default)s)")
    parser.add_argument(
        "--entries", type=int, default=150000, help="written into each module's table (default: %(default)s)"
    )
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        names = write(folder, options.modules, options.entries)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        start = time.perf_counter()
        threads = [
            threading.Thread(target=load, args=(names[index :: options.threads],), name="import-%d" % index)
            for index in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
    print("import_storm: %d threads imported %d modules in %.2f s" % (options.threads, options.modules, seconds))


if __name__ == "__main__":
    main()
