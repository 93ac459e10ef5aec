"""For hosts that are servers: start one on a free port, ask it, and end it as a supervisor does."""

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

CLIENTS, REQUESTS = 4, 400


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def beside(name):
    """A program of the interpreter's own environment."""
    return str(Path(sys.executable).with_name(name))


def ask(port, found):
    for number in range(REQUESTS):
        with urllib.request.urlopen("http://127.0.0.1:%d/%d" % (port, number), timeout=60) as answer:
            found.append(answer.read())


def serve_and_ask(argv, port):
    """Start the server `argv`, ask it from several threads, end it, and print what came of it."""
    server = subprocess.Popen(argv, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("the server did not start")
            time.sleep(0.05)
    found = []
    threads = [threading.Thread(target=ask, args=(port, found)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.send_signal(signal.SIGTERM)
    print(len(found), len(set(found)), "status", server.wait(60))
