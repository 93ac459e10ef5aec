"""Processes and threads: their names, and the tracks that everything about them hangs from."""

from __future__ import annotations

import numpy as np

from giltrace.exporters._names import command_words, labels
from giltrace.exporters.perfetto.packets import Ints
from giltrace.exporters.perfetto.protos import packet, pb
from giltrace.exporters.perfetto.sink import Sink
from giltrace.timeline.model import Process, Timeline

_OTHERS_PER_PACKET = 4096


def describe_process(sink: Sink, process: Process) -> Ints:
    """Describe a process and its threads; the uuid of each thread, shape (threads,)."""
    words = command_words(process)
    descriptor = pb.ProcessDescriptor(pid=process.pid, process_name=words[0])
    sink.track(("process", process.pid), process=descriptor)
    tree = pb.ProcessTree()
    tree.processes.add(pid=process.pid, ppid=process.ppid, cmdline=words)
    uuids = []
    for thread, label in zip(process.threads, labels(process), strict=True):
        tree.threads.add(tid=thread.tid, tgid=process.pid, name=label)
        own = pb.ThreadDescriptor(pid=process.pid, tid=thread.tid, thread_name=label)
        uuids.append(sink.track(("thread", process.pid, thread.tid), thread=own))
    sink.write(packet(timestamp=process.start, process_tree=tree))
    return np.array(uuids, np.int64)


def describe_others(sink: Sink, timeline: Timeline) -> None:
    """Name the threads that are known from their context switches only, and their processes."""
    tasks = timeline.other_tasks
    traced = {process.pid for process in timeline.processes}
    mains = {task.pid: task.name for task in tasks if task.pid not in traced}
    mains.update({task.pid: task.name for task in tasks if task.pid == task.tid and task.pid not in traced})
    others = list(mains.items())
    for at in range(0, len(others), _OTHERS_PER_PACKET):
        tree = pb.ProcessTree()
        for pid, name in others[at : at + _OTHERS_PER_PACKET]:
            tree.processes.add(pid=pid, cmdline=[name], cmdline_is_comm=True)
        sink.write(packet(timestamp=timeline.start, process_tree=tree))
    for at in range(0, len(tasks), _OTHERS_PER_PACKET):
        tree = pb.ProcessTree()
        for task in tasks[at : at + _OTHERS_PER_PACKET]:
            tree.threads.add(tid=task.tid, tgid=task.pid, name=task.name)
        sink.write(packet(timestamp=timeline.start, process_tree=tree))
