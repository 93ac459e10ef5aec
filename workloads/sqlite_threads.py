"""Two threads let SQLite compute, each on a connection of its own: it works off the GIL, so both run at once.

The sqlite3 module gives the GIL up for each step of a statement. These statements need one long step.

What to look for: short green holds with long gaps in which both threads run, as the tracks of the cores show. A
statement that returns many rows is another matter: one step per row, each followed by Python code; try `--rows`.

Needs: sqlite3
Truth: verdict = parallel
Truth: held_share <= 0.2
Truth: wait_share <= 0.1
Truth: holds(sql-*) >= 20
Truth: off_ready_share >= 0.6
"""

import argparse
import threading
import time

SUM = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT sum(x) FROM n"
ROWS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT x FROM n"


def query(sqlite3, statement, rounds, limit):
    """Run a statement that counts to `limit`, `rounds` times, on a connection of this thread's own."""
    connection = sqlite3.connect(":memory:")
    for _ in range(rounds):
        for _ in connection.execute(statement, (limit,)):
            pass
    connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10, help="statements per thread (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200000, help="what they count to (default: %(default)s)")
    parser.add_argument("--rows", action="store_true", help="return every number instead of their sum")
    options = parser.parse_args()
    try:
        import sqlite3
    except ImportError:
        parser.error("needs sqlite3, which this Python was built without")

    statement = ROWS if options.rows else SUM
    start = time.perf_counter()
    threads = [
        threading.Thread(target=query, args=(sqlite3, statement, options.rounds, options.limit), name="sql-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    number = options.threads * options.rounds
    print("sqlite_threads: %d statements took %.2f s" % (number, time.perf_counter() - start))


if __name__ == "__main__":
    main()
