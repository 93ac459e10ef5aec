"""Two threads pass the turn to and fro through two Events: 10,000 hand-offs of the GIL, and nobody has to ask for it.

Whoever has the turn sets the other's Event and waits for its own. Nothing is computed, so the time is that of waking a
thread up, twice a round.

What to look for: between a release and the acquire that follows lies the wake-up latency of the operating system, some
20 to 100 us, in which nobody holds the GIL; the flow arrows go back and forth. Where the woken thread is quick, it
waits some microseconds for the one that woke it to reach its own wait.

Truth: verdict = io-bound-handoff
Truth: handoffs >= 9000
Truth: holds(player-*) >= 10000
Truth: median_wait_ms(player-*) <= 1
Truth: switch_requests(player-*) <= 100
"""

import argparse
import threading
import time


def play(rounds, mine, other):
    """Wait for the turn and pass it on, `rounds` times."""
    for _ in range(rounds):
        mine.wait()
        mine.clear()
        other.set()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5000, help="turns of each player (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    ping, pong = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=play, args=(options.rounds, ping, pong), name="player-0"),
        threading.Thread(target=play, args=(options.rounds, pong, ping), name="player-1"),
    ]
    for thread in threads:
        thread.start()
    ping.set()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("ping_pong: the turn was passed %d times in %.2f s" % (2 * options.rounds, seconds))


if __name__ == "__main__":
    main()
