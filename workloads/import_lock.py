"""Four threads need the same modules at once: one imports each, and the others wait for its import lock.

A module takes 100 ms at its top level, asleep as if it read a model from a disk. Each of the threads asks for all of
them, as handlers do that import in their functions; the first requests of a server are slow for that.

What to look for: three of four threads are `blocked: import-lock` at their own line that imports, until the one that
came first is done. They go on all at once. Importing before the threads start is the remedy.

Truth: verdict = lock-bound
Truth: held_share <= 0.5
Truth: lock_share(handler-*) >= 0.4
Truth: blocks(handler-*) >= 12
Truth: woken_share(handler-*) >= 0.7
Truth: cause(handler-*) = import-lock
"""

import argparse
import importlib
import os
import sys
import tempfile
import threading
import time


def write(folder, number, seconds):
    """Write `number` modules that each take that long; return their names."""
    for index in range(number):
        with open(os.path.join(folder, "slow_%d.py" % index), "w") as file:
            file.write("import time\n\ntime.sleep(%r)\n" % seconds)
    return ["slow_%d" % index for index in range(number)]


def handle(names, together):
    """Import what is needed, once all threads are there."""
    for name in names:
        together.wait()
        importlib.import_module(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--modules", type=int, default=8, help="that all need (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.1, help="that each module takes (default: %(default)s)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        names = write(folder, options.modules, options.seconds)
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        together = threading.Barrier(options.threads)
        start = time.perf_counter()
        threads = [
            threading.Thread(target=handle, args=(names, together), name="handler-%d" % index)
            for index in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
    print("import_lock: %d threads imported the same %d modules in %.2f s" % (options.threads, len(names), seconds))


if __name__ == "__main__":
    main()
