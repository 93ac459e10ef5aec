"""Runs a command so that its output, status and CPU time are its own, whoever watches: `launch.py RESULT COMMAND...`.

RESULT.out and RESULT.err get the output, RESULT.pid the process id, RESULT.json how it ended and what it used together
with the children that it waited for. Valid in Python 3.8 and later.
"""

import json
import os
import sys
import time

result, argv = sys.argv[1], sys.argv[2:]
begin = time.monotonic()
pid = os.fork()
if pid == 0:
    for target, name in ((0, os.devnull), (1, result + ".out"), (2, result + ".err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), target)
    os.execvp(argv[0], argv)
with open(result + ".pid", "w") as file:
    file.write(str(pid))
_, status, usage = os.wait4(pid, 0)
ended = {
    "status": -(status & 127) if status & 127 else status >> 8,
    "cpu": usage.ru_utime + usage.ru_stime,
    "wall": time.monotonic() - begin,
}
with open(result + ".json", "w") as file:
    json.dump(ended, file)
