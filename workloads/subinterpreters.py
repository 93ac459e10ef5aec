"""Two threads count, each in a subinterpreter with a GIL of its own: both run at once, in one process.

Since Python 3.12 an interpreter can have its own GIL. Threads of different interpreters share memory that is not
Python's, and nothing else: code and data are passed as text or bytes.

What to look for: one GIL group per interpreter, held at the same time. The main interpreter's GIL is free meanwhile, as
the threads left it for that of theirs. Compare with `cpu_bound`: the same work, with one GIL.

Needs: Python 3.12
Truth: verdict = parallel
Truth: gils_at_once >= 1.2
Truth: wait_share <= 0.1
Truth: forced(sub-*) <= 5
Truth: handoffs <= 60
"""

import argparse
import functools
import sys
import threading
import time

COUNT = """
number = 0
while number < %d:
    number += 1
"""


def new_interpreter():
    """Make an interpreter with a GIL of its own; return how to run code in it, and how to end it."""
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        made = interpreters.create()
        return made.exec, made.close
    if sys.version_info >= (3, 13):
        import _interpreters as private
    else:
        import _xxsubinterpreters as private
    number = private.create()
    return functools.partial(private.run_string, number), functools.partial(private.destroy, number)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=10000000, help="what each thread counts to (default: %(default)s)")
    options = parser.parse_args()
    if sys.version_info < (3, 12):
        parser.error("needs Python 3.12 or later: before, all interpreters of a process share one GIL")

    made = [new_interpreter() for _ in range(options.threads)]
    start = time.perf_counter()
    threads = [
        threading.Thread(target=run, args=(COUNT % options.count,), name="sub-%d" % index)
        for index, (run, _) in enumerate(made)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    for _, end in made:
        end()
    print("subinterpreters: %d interpreters counted to %d in %.2f s" % (options.threads, options.count, seconds))


if __name__ == "__main__":
    main()
