"""Asks of real functions whether they release the GIL, and prints what it is told of each as JSON: {name: message}.

Arguments: how often, and how many other processes are to be busy meanwhile. A function that is told different things
has them all.
"""

import bz2
import hashlib
import io
import json
import lzma
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pandas as pd
from PIL import Image

import giltrace

TEXT = ("".join(str(number) for number in range(400_000))).encode()
VALUES = [number * 7919 % 1_000_003 for number in range(400_000)]
SUM = "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < 300000) SELECT sum(x) FROM c"
MATRIX = np.arange(490_000, dtype=float).reshape(700, 700)
OBJECTS = np.array(VALUES, dtype=object)
FRAME = pd.DataFrame({"key": np.arange(20_000) % 500, "value": np.arange(20_000.0)})
PICTURE = Image.frombytes("RGB", (2000, 2000), os.urandom(12_000_000))
DATABASE = sqlite3.connect(":memory:")


def receive():
    here, there = socket.socketpair()
    with here, there:
        threading.Timer(0.02, there.send, [b"x"]).start()
        here.recv(1)


FUNCTIONS = {
    "zlib.compress": lambda: zlib.compress(TEXT, 9),
    "bz2.compress": lambda: bz2.compress(TEXT[:500_000]),
    "lzma.compress": lambda: lzma.compress(TEXT, preset=1),
    "hashlib.sha256 of 30 MB": lambda: hashlib.sha256(bytes_of_30_mb),
    "time.sleep": lambda: time.sleep(0.02),
    "socket.recv": receive,
    "sqlite3 execute": lambda: DATABASE.execute(SUM),
    "numpy dot": lambda: np.dot(MATRIX, MATRIX),
    "Pillow resize": lambda: PICTURE.resize((500, 500), Image.Resampling.LANCZOS),
    "re backtracking": lambda: re.match(r"(a+)+$", "a" * 20 + "b"),
    "json.dumps": lambda: json.dumps(VALUES),
    "json.load": lambda: json.load(io.BytesIO(json_text)),
    "sorted": lambda: sorted(VALUES),
    "hashlib.sha256 of 1 kB": lambda: hashlib.sha256(TEXT[:1000]),
    "numpy of objects": lambda: OBJECTS + OBJECTS,
    "pandas groupby with a lambda": lambda: FRAME.groupby("key")["value"].agg(lambda part: part.max()),
    "bytes.translate": lambda: TEXT.translate(None, b"0123456789"),
}
bytes_of_30_mb = bytes(30_000_000)
json_text = json.dumps(VALUES).encode()


def told(function):
    try:
        giltrace.assert_releases_gil(function)
    except AssertionError as error:
        return str(error)
    return ""


rounds, beside = int(sys.argv[1]), int(sys.argv[2])
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
try:
    for function in FUNCTIONS.values():
        function()  # what is imported or built at the first call is not what is asked about
    found = {name: [told(function) for _ in range(rounds)] for name, function in FUNCTIONS.items()}
finally:
    for process in busy:
        process.kill()
        process.wait()
print(json.dumps(found))
