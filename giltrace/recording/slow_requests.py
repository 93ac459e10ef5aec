"""What a program's middleware and a flight recorder agree on: files of slow requests, a line of JSON each."""

from __future__ import annotations

import re

#: Where a recorder says from which length (ns) on it wants to know of a request, and into which folder to write.
LIMIT, FOLDER = "GILTRACE_REQUEST_LIMIT", "GILTRACE_OUT"
#: Of a process's file, the name; a file of this many bytes tells enough of requests that take too long.
FILE = re.compile(r"requests-(\d{1,10})\.jsonl")
MOST_BYTES = 1 << 20


def file_name(pid: int) -> str:
    """The name of a process's file."""
    return f"requests-{pid}.jsonl"
