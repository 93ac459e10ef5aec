"""Releases the GIL inside sub-interpreters and outside, by turns."""

import time

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

INSIDE = """
import time
def inside():
    for _ in range(100): time.sleep(0)
inside()
"""


def outside():
    for _ in range(100):
        time.sleep(0)


for _ in range(3):
    own = interpreters.create()
    outside()
    interpreters.run_string(own, INSIDE)
    interpreters.destroy(own)
    outside()
