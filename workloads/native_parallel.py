"""Two threads hash big buffers: the hash function gives the GIL up while it works, so both run at once.

The GIL is held only for the moments between two calls.

What to look for: the gaps between the short holds are not idle: the threads are off-GIL and running, on two cores at
the same time. The verdict says how many cores were busy on average.

Truth: verdict = parallel
Truth: held_share <= 0.2
Truth: wait_share <= 0.1
Truth: forced(hash-*) <= 5
Truth: holds(hash-*) >= 240
Truth: off_ready_share >= 0.8
"""

import argparse
import hashlib
import threading
import time


def digest(data, rounds):
    """Hash `data` `rounds` times; hashlib releases the GIL for anything longer than 2 KiB."""
    for _ in range(rounds):
        hashlib.sha256(data).digest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=120, help="hashes per thread (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=16, help="size of the buffer (default: %(default)s)")
    options = parser.parse_args()

    data = bytes(options.megabytes << 20)
    start = time.perf_counter()
    threads = [
        threading.Thread(target=digest, args=(data, options.rounds), name="hash-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    size = options.threads * options.rounds * options.megabytes
    print("native_parallel: %d threads hashed %d MiB in %.2f s" % (options.threads, size, seconds))


if __name__ == "__main__":
    main()
