"""Three threads walk one tree, and each takes the tree's RLock anew at every level: the walks come one after the other.

An RLock may be taken again by the thread that has it, so that methods can call each other; others wait until the
outermost of them has given it back. At each leaf the walk sleeps for a moment, as if it read from a disk.

What to look for: a block ends only where the outermost call gives the lock back, however often it is taken and given
back inside: one arrow for each walk. The blocked line is `walk` too, at its first call.

Truth: verdict = lock-bound
Truth: held_share <= 0.4
Truth: lock_share(walker-*) >= 0.4
Truth: blocks(walker-*) >= 10
Truth: woken_share(walker-*) >= 0.9
Truth: cause(walker-*) = lock
"""

import argparse
import threading
import time


class Tree:
    """A tree of that depth, whose methods may be called by any thread."""

    def __init__(self, depth, seconds):
        self.lock = threading.RLock()
        self.depth = depth
        self.seconds = seconds

    def walk(self, depth=0):
        """Walk down from that depth; the number of leaves."""
        with self.lock:
            if depth == self.depth:
                time.sleep(self.seconds)
                return 1
            return self.walk(depth + 1) + self.walk(depth + 1)


def walks(tree, number, leaves):
    """Walk all of the tree `number` times."""
    for _ in range(number):
        leaves.append(tree.walk())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--walks", type=int, default=25, help="of each thread (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=3, help="of the tree (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.001, help="at each leaf (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    tree, leaves = Tree(options.depth, options.seconds), []
    threads = [
        threading.Thread(target=walks, args=(tree, options.walks, leaves), name="walker-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("rlock_recursion: %d threads found %d leaves in %.2f s" % (options.threads, sum(leaves), seconds))


if __name__ == "__main__":
    main()
