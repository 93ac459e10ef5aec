"""Traces itself three times, with a thread that was there before, and prints what the recordings say as JSON."""

import json
import sys
import threading
import time

import giltrace

running = True


def spin():
    number = 0
    while running:
        number += 1


def steps():
    for _ in range(20):
        time.sleep(0.001)


old = threading.Thread(target=spin, name="old-spinner", daemon=True)
old.start()
for number in range(3):
    with giltrace.trace(f"{sys.argv[1]}/run-{number}"):
        brief = threading.Thread(target=steps, name=f"brief-{number}")
        brief.start()
        brief.join()
    steps()
refused = ""
with giltrace.trace(f"{sys.argv[1]}/outer"):
    try:
        with giltrace.trace(f"{sys.argv[1]}/inner"):
            pass
    except giltrace.GiltraceError as error:
        refused = error.message
running = False
old.join()

found = []
for number in range(3):
    timeline = giltrace.load(f"{sys.argv[1]}/run-{number}").timeline
    (process,) = timeline.processes
    brief_holds = [
        int(hold["end"] - hold["start"])
        for hold in process.holds
        if process.threads[hold["thread"]].name == f"brief-{number}"
    ]
    found.append(
        {
            "violations": timeline.violations,
            "lost": timeline.lost,
            "gils": process.gils,
            "threads": sorted(thread.name for thread in process.threads),
            "brief": len(brief_holds),
            "lines": len(process.stacks.table.strings) if process.stacks else 0,
        }
    )
print(json.dumps({"recordings": found, "refused": refused}))
