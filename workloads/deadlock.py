"""Two transfers lock two accounts, each in its own order: each has one of both and waits for the other's.

Each gives up after half a second, so that the program ends; without a timeout it would never do so.

What to look for: the violet blocks of both threads, `blocked: lock`, begin one after the other and overlap, and no
arrow leads out of them, since nobody wakes them up. The GIL is free all the while: a deadlock is not its doing. The
verdict names both threads, the line at which each one waits, and who has what it waits for.

Truth: verdict = deadlock
Truth: held_share <= 0.3
Truth: wait_share <= 0.1
Truth: lock_share(transfer-*) >= 0.7
Truth: blocks(transfer-*) >= 2
Truth: woken_share(transfer-*) <= 0.7
Truth: cause(transfer-*) = lock
"""

import argparse
import threading
import time


def transfer(mine, other, barrier, seconds):
    """Lock one account, and then, if nobody has had it for too long, the other."""
    with mine:
        barrier.wait()
        if other.acquire(timeout=seconds):
            other.release()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="until they give up (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    accounts, barrier = (threading.Lock(), threading.Lock()), threading.Barrier(2)
    threads = [
        threading.Thread(
            target=transfer,
            args=(accounts[index], accounts[1 - index], barrier, options.seconds),
            name="transfer-%d" % index,
        )
        for index in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("deadlock: two threads waited for each other for %.2f s" % (time.perf_counter() - start))


if __name__ == "__main__":
    main()
