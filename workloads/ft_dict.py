"""Without a GIL, four threads take snapshots of one dict: each copy has the lock of the dict, so one copies at a time.

Every list, dict and other object of a free-threaded build has a lock of its own, which its methods take. A short call
has it back before anybody notices; copying 800,000 entries takes 20 ms.

What to look for: the threads run side by side only between their copies. Their violet blocks, `blocked: object-lock`,
end where another thread's copy ends, and the verdict says what type of object it is that the lock belongs to. With
`--own` each thread copies a dict of its own, and there are none.

Needs: Python 3.13t
Truth: verdict = lock-bound
Truth: lock_share(copy-*) >= 0.15
Truth: blocks(copy-*) >= 10
Truth: woken_share(copy-*) >= 0.9
Truth: cause(copy-*) = object-lock
"""

import argparse
import sys
import threading
import time


def snapshots(table, number):
    """Copy a table `number` times."""
    for _ in range(number):
        table.copy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--snapshots", type=int, default=8, help="of each thread (default: %(default)s)")
    parser.add_argument("--entries", type=int, default=800000, help="of the dict (default: %(default)s)")
    parser.add_argument("--own", action="store_true", help="give each thread a dict of its own")
    options = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        parser.error("needs Python 3.13t, a build without a GIL")

    start = time.perf_counter()
    shared = dict.fromkeys(range(options.entries))
    threads = [
        threading.Thread(
            target=snapshots,
            args=(dict(shared) if options.own else shared, options.snapshots),
            name="copy-%d" % index,
        )
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("ft_dict: %d threads copied %d times each in %.2f s" % (options.threads, options.snapshots, seconds))


if __name__ == "__main__":
    main()
