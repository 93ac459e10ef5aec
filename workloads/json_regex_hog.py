"""One thread parses big JSON, another matches a regular expression: both stay in C and keep the GIL for all of a call.

No line of this program is slow Python. But `json.loads` and `re` never look whether anybody asks for the GIL, and so a
request that takes 1 ms waits for a parse that takes 100 ms.

What to look for: the report lists both as hogs, by line and by how long they went on after they were asked. In the
trace a wait of `victim-0` spans several switch requests, and the sampled stacks of the holder name the culprit.

Truth: verdict = hog
Truth: held_share >= 0.8
Truth: longest_hold_ms(json-*) >= 10
Truth: longest_hold_ms(regex-*) >= 15
Truth: longest_wait_ms(victim-*) >= 15
Truth: wait_share(victim-*) >= 0.6
"""

import argparse
import json
import re
import threading
import time

done = threading.Event()


def parse(text, rounds):
    """Parse `text` `rounds` times: each call is one long stretch of C."""
    for _ in range(rounds):
        json.loads(text)


def match(text, rounds):
    """Look `rounds` times for a number behind many words: each call is one long stretch of C."""
    pattern = re.compile(r"(?:\w+ )+\d")
    for _ in range(rounds):
        pattern.search(text)


def tick(seconds):
    """Sleep for `seconds` at a time until the others are done."""
    while not done.is_set():
        time.sleep(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="calls of each kind (default: %(default)s)")
    parser.add_argument("--items", type=int, default=90000, help="entries of the JSON (default: %(default)s)")
    parser.add_argument("--words", type=int, default=800, help="words that are searched (default: %(default)s)")
    options = parser.parse_args()

    document = json.dumps([{"id": index, "name": "item %d" % index} for index in range(options.items)])
    start = time.perf_counter()
    workers = [
        threading.Thread(target=parse, args=(document, options.rounds), name="json-0"),
        threading.Thread(target=match, args=("word " * options.words, options.rounds), name="regex-0"),
    ]
    victim = threading.Thread(target=tick, args=(0.001,), name="victim-0")
    for thread in [*workers, victim]:
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    victim.join()
    seconds = time.perf_counter() - start
    print("json_regex_hog: %d calls of each kind in %.2f s" % (options.rounds, seconds))


if __name__ == "__main__":
    main()
