"""Another tool and the tracer come and go in every order, and each is to see all calls while it is there.

Arguments: the tracer's library, the other tool's, a folder for recordings. Prints how many calls the other tool missed,
how many recordings there are, and whether all is as it was in the end.
"""

import ctypes
import os
import sys
import time

SLEEPS = 50
tracer, tool = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
tool.calls.restype = ctypes.c_long
recordings = 0


def start():
    global recordings
    folder = os.path.join(sys.argv[3], str(recordings))
    recordings += 1
    os.mkdir(folder)
    assert tracer.giltrace_start(os.fsencode(folder), 0, 0, None) == 0
    work()


def stop():
    tracer.giltrace_stop()
    work()


def come():
    tool.come()
    expect_seen()


def go():
    tool.go()
    work()


def work():
    before = tool.calls()
    for _ in range(SLEEPS):
        time.sleep(0)
    return tool.calls() - before


def expect_seen():
    """A release and an acquire each."""
    assert work() >= 2 * SLEEPS


def description():
    out = ctypes.create_string_buffer(4096)
    tool.describe(out, len(out))
    return out.value


assert tool.find(ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p)) > 0
work()
# What is called for the first time is bound only now, in some builds.
bare = description()

# The tool was there first, and stays.
come()
with_tool = description()
start()
expect_seen()
stop()
expect_seen()
assert description() == with_tool
# It goes while the tracer is away, and comes back while it is there: on top of it.
go()
start()
with_tracer = description()
come()
stop()
expect_seen()
# The tracer comes back, to below the tool.
start()
expect_seen()
go()
assert description() == with_tracer
stop()
assert description() == bare
# The tool puts the tracer's function back after the tracer has gone: that lets everything pass.
start()
come()
stop()
go()
assert description() == with_tracer
work()
start()
stop()
# Now, or never, the tracer can take it away again.
assert description() == bare
print("as it was", recordings)
