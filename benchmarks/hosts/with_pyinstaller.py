"""PyInstaller: one file that unpacks an interpreter, opened with `dlopen`, and runs threads in it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import threading
def work(number): results[number] = sum(i * number for i in range(8000000))
results = {}
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results.items()))
"""


def prepare():
    Path("program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--log-level=ERROR", "program.py"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        prepare()
    else:
        sys.exit(subprocess.call(["dist/program"]))
