"""Two threads compute with numpy: arrays of numbers off the GIL, arrays of Python objects with it.

numpy gives the GIL up where it works on plain numbers, but every operation on Python objects needs it. Here most of the
work is of the first kind, so that both threads run at once.

What to look for: the stacks tell the two kinds apart. Gaps begin at the line with `numpy.sin`, in C off the GIL; holds
end there, and what they spent is the sum of the objects in the line before it. A larger `--objects` tips the balance.

Needs: numpy
Truth: verdict = parallel
Truth: held_share <= 0.5
Truth: wait_share <= 0.25
Truth: longest_hold_ms(array-*) >= 0.5
Truth: holds(array-*) >= 45
Truth: off_ready_share >= 0.5
"""

import argparse
import threading
import time


def compute(numpy, rounds, numbers, objects):
    """Add up Python objects, which needs the GIL, then work on numbers, which does not; `rounds` times."""
    counted = numpy.arange(objects).astype(object)
    measured = numpy.linspace(0.0, 10.0, numbers)
    result = numpy.empty_like(measured)
    for _ in range(rounds):
        counted.sum()
        numpy.sin(measured, out=result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30, help="of each thread (default: %(default)s)")
    parser.add_argument("--numbers", type=int, default=1500000, help="in an array (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=50000, help="in an array of objects (default: %(default)s)")
    options = parser.parse_args()
    try:
        import numpy
    except ImportError:
        parser.error("needs numpy, which this Python does not have; install it, or name another with --python")

    start = time.perf_counter()
    threads = [
        threading.Thread(
            target=compute, args=(numpy, options.rounds, options.numbers, options.objects), name="array-%d" % index
        )
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("numpy_mix: %d threads made %d rounds each in %.2f s" % (options.threads, options.rounds, seconds))


if __name__ == "__main__":
    main()
