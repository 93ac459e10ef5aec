"""`giltrace record` as its user meets it: what passes through, what is left behind, whatever ends the target."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors import LIGHT, NAMES
from giltrace.launch.recorder import POLL_SECONDS
from giltrace.recording.meta import Meta
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests.interpreters import Interpreter

GILTRACE = (sys.executable, "-m", "giltrace")

THREADS = """
import threading, time
def work():
    for _ in range(20): time.sleep(0.0005); sum(range(2000))
threads = [threading.Thread(target=work, name='w-%d' % i) for i in range(3)]
for t in threads: t.start()
for t in threads: t.join()
"""


def giltrace(*words: str | Path, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run giltrace in `folder` with `given` as its input, its output captured as text."""
    command = [*GILTRACE, *map(str, words)]
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=90, check=False)


def check(folder: Path, name: str) -> Timeline:
    """The recording is complete, sound and has its trace; returns its timeline."""
    timeline = load(folder / f"{name}.giltrace")
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert (folder / f"{name}.pftrace").stat().st_size > 1000
    assert Meta.read(folder / f"{name}.giltrace").state == "complete"
    return timeline


def test_records_every_interpreter_from_our_own(interpreter: Interpreter, tmp_path: Path) -> None:
    ran = giltrace("record", "--light", "--python", interpreter.path, "-o", "x", "-c", THREADS, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (process,) = check(tmp_path, "x").processes
    assert {thread.name for thread in process.threads} == {"MainThread", "w-0", "w-1", "w-2"}
    assert process.python.startswith(".".join(map(str, interpreter.version)))
    assert process.has_sched or any("perf" in report.status for report in load(tmp_path / "x.giltrace").collectors)


def test_a_program_of_ones_own_runs_without_viztracer_and_a_workload_with_it(tmp_path: Path) -> None:
    assert giltrace("record", "-o", "x", "-c", "pass", folder=tmp_path).returncode == 0
    assert [report.name for report in load(tmp_path / "x.giltrace").collectors] == ["gil", "sched", "py-spy"]
    for more, wanted in ((), [*NAMES]), (("--light",), [*LIGHT]), (("--light", "--spans"), [*LIGHT, "viztracer"]):
        ran = giltrace("record", "-f", "-o", "y", *more, "single", "--count", "1000", folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert [report.name for report in load(tmp_path / "y.giltrace").collectors] == wanted


def test_all_collectors_report_or_say_why(tmp_path: Path) -> None:
    ran = giltrace("record", "--spans", "-o", "x", "--python", sys.executable, "-c", THREADS, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    timeline = check(tmp_path, "x")
    assert [report.name for report in timeline.collectors] == ["gil", "sched", "py-spy", "viztracer"]
    spans = {one.collector for process in timeline.processes for one in process.spans}
    for report in timeline.collectors:
        assert report.status == "ok" or len(report.status) > 20, report
        assert report.name in ("gil", "sched") or (report.name in spans) == (report.ok and report.name in spans)


def test_streams_and_status_pass_through(tmp_path: Path) -> None:
    code = "import sys; data = sys.stdin.read(); print(data.upper()); print('to stderr', file=sys.stderr); sys.exit(37)"
    ran = giltrace("record", "--light", "-o", "x", "-c", code, folder=tmp_path, given="hello")
    assert ran.returncode == 37
    assert ran.stdout == "HELLO\n"
    assert ran.stderr.startswith("to stderr\n")
    check(tmp_path, "x")


ENDINGS = {
    "os._exit": ("import os; os._exit(3)", 3),
    "segfault": ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    "kill -9": ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
    "abort": ("import os; os.abort()", -signal.SIGABRT),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_every_end_leaves_a_valid_recording(how: str, tmp_path: Path) -> None:
    code, status = ENDINGS[how]
    ran = giltrace("record", "--light", "-o", "x", "-c", THREADS + code, folder=tmp_path)
    assert ran.returncode == status, ran.stderr
    (process,) = check(tmp_path, "x").processes
    assert Meta.read(tmp_path / "x.giltrace").exit_status == status
    assert len({int(t) for t in process.holds["thread"]}) == 4


class Waiting:
    """A recorder whose target has printed its pid and now waits with a thread that counts."""

    CODE = (
        "import os, threading, signal, sys\n"
        "def count():\n"
        "    while True: pass\n"
        "threading.Thread(target=count, daemon=True, name='counter').start()\n"
        "print(os.getpid(), flush=True)\n"
        "threading.Event().wait()\n"
    )

    def __init__(self, folder: Path) -> None:
        command = [*GILTRACE, "record", "--light", "-o", "x", "-c", self.CODE]
        pipe = subprocess.PIPE
        self.recorder = subprocess.Popen(
            command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        assert self.recorder.stdout is not None
        self.target = int(self.recorder.stdout.readline())

    def end(self) -> tuple[int, str]:
        _, errors = self.recorder.communicate(timeout=60)
        return self.recorder.returncode, errors


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_recorder_reach_the_target(sent: signal.Signals, tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    waiting.recorder.send_signal(sent)
    status, errors = waiting.end()
    # Python ends by SIGINT itself after KeyboardInterrupt.
    assert status == -sent, errors
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    (process,) = check(tmp_path, "x").processes
    assert {thread.name for thread in process.threads} == {"MainThread", "counter"}


def test_ctrl_c_in_the_terminal_is_delivered_once(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group; the recorder must not pass it on a second time."""
    leader, follower = os.openpty()
    code = (
        "import signal, os, sys\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda *a: seen.append(1))\n"
        "told, tell = os.pipe()\n"
        "os.set_blocking(tell, False)\n"
        "signal.set_wakeup_fd(tell)\n"
        "print('ready', flush=True)\n"
        "os.read(told, 1)\n"  # what came before is not missed, as it is by pause()
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "again = signal.sigtimedwait([signal.SIGINT], 0.5)\n"
        "print('count', len(seen) + (again is not None), flush=True)\n"
    )
    command = [*GILTRACE, "record", "--light", "-o", "x", "-c", code]
    # A session of its own whose controlling terminal is the pseudo-terminal.
    launcher = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, *command],
        cwd=tmp_path,
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(follower)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.write(leader, b"\x03")
    output, errors = process.communicate(timeout=60)
    os.close(leader)
    assert output == "count 1\n", errors
    assert process.returncode == 0
    check(tmp_path, "x")


def test_a_recorder_that_was_stopped_for_a_while_sends_nothing(tmp_path: Path) -> None:
    """As by Ctrl-Z and `fg`. What waits for signals by the clock has seen ones then that never came."""
    waiting = Waiting(tmp_path)
    recorder = waiting.recorder
    for _ in range(20):
        recorder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, recorder.pid, os.WSTOPPED)
        time.sleep(2 * POLL_SECONDS)
        recorder.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, recorder.pid, os.WCONTINUED)
    recorder.send_signal(signal.SIGTERM)
    status, errors = waiting.end()
    assert status == -signal.SIGTERM, errors
    check(tmp_path, "x")


def test_kill_of_the_target_alone(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    os.kill(waiting.target, signal.SIGKILL)
    status, errors = waiting.end()
    assert status == -signal.SIGKILL, errors
    check(tmp_path, "x")


def test_kill_of_the_recorder_leaves_a_recording_that_reads(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    waiting.recorder.kill()
    waiting.recorder.wait(timeout=30)
    os.kill(waiting.target, signal.SIGKILL)
    waiting.end()
    timeline = load(tmp_path / "x.giltrace")
    assert timeline.violations == ()
    assert {thread.name for thread in timeline.processes[0].threads} >= {"MainThread", "counter"}
    assert not Meta.read(tmp_path / "x.giltrace").finished
    # Whether the kernel's part was written already is a matter of luck.
    assert timeline.remarks[0].startswith("unfinished")


def test_what_a_killed_recorder_left_reads_while_it_is_written(tmp_path: Path) -> None:
    """Its files are read one part after the other: what was stored meanwhile is there in part only."""
    code = (
        "import os, threading\n"
        "fd = os.open('/dev/zero', os.O_RDONLY)\n"
        "def read():\n"
        "    while True:\n"
        "        for _ in range(1000): pass\n"
        "        os.read(fd, 1)\n"
        "for _ in range(4): threading.Thread(target=read, daemon=True).start()\n"
        "print(os.getpid(), flush=True)\n"
        "input()\n"
        "os._exit(0)\n"
    )
    recorder = subprocess.Popen(
        [*GILTRACE, "record", "--light", "-o", "x", "-c", code],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert recorder.stdout is not None
    target = os.pidfd_open(int(recorder.stdout.readline()))
    try:
        recorder.kill()
        recorder.wait(timeout=30)
        found = [load(tmp_path / "x.giltrace") for _ in range(10)]
    finally:
        signal.pidfd_send_signal(target, signal.SIGKILL)
        os.close(target)
        recorder.communicate()
    assert [timeline.violations for timeline in found] == [()] * 10
    assert len(found[-1].processes[0].holds) > len(found[0].processes[0].holds)


def test_forked_children_have_timelines_of_their_own(interpreter: Interpreter, tmp_path: Path) -> None:
    code = (
        "import os, threading\n"
        "for i in range(3):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        t = threading.Thread(target=sum, args=(range(10000),), name='in-child-%d' % i); t.start(); t.join()\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    ran = giltrace("record", "--light", "--python", interpreter.path, "-o", "x", "-c", code, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    processes = check(tmp_path, "x").processes
    assert len({process.pid for process in processes}) == 4
    named = {thread.name for process in processes for thread in process.threads}
    assert {f"in-child-{i}" for i in range(3)} <= named
    parent = next(p for p in processes if not any("in-child" in t.name for t in p.threads))
    assert all(p.ppid == parent.pid for p in processes if p is not parent)


def test_exec_and_commands_that_are_not_python_are_followed(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("import os, sys; os.execv(sys.executable, [sys.executable, 'second.py'])")
    (tmp_path / "second.py").write_text("print(2)")
    script = '"$0" -c "print(1)"; exec "$0" first.py'
    ran = giltrace("record", "--light", "-o", "x", "--", "sh", "-c", script, sys.executable, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "1\n2\n"
    processes = check(tmp_path, "x").processes
    assert len(processes) == 3
    assert len({process.pid for process in processes}) == 2
    first, second = [p for p in processes if [q.pid for q in processes].count(p.pid) == 2]
    assert first.end <= second.start


def test_a_target_that_closes_every_descriptor_is_still_recorded(tmp_path: Path) -> None:
    code = "import os; os.closerange(3, 4096); f = open('data', 'w'); f.write('x'); f.close();" + THREADS
    ran = giltrace("record", "--light", "-o", "x", "-c", "exec(" + repr(code) + ")", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (process,) = check(tmp_path, "x").processes
    assert len(process.threads) == 4
    assert (tmp_path / "data").read_text() == "x"


def test_earlier_output_is_kept_unless_forced(tmp_path: Path) -> None:
    assert giltrace("record", "--light", "-o", "x", "-c", "pass", folder=tmp_path).returncode == 0
    before = Meta.read(tmp_path / "x.giltrace").start_ns
    again = giltrace("record", "--light", "-o", "x", "-c", "print('started')", folder=tmp_path)
    assert again.returncode == 2
    assert again.stdout == ""
    assert "--force" in again.stderr
    assert Meta.read(tmp_path / "x.giltrace").start_ns == before
    assert giltrace("record", "--light", "--force", "-o", "x", "-c", "pass", folder=tmp_path).returncode == 0
    assert Meta.read(tmp_path / "x.giltrace").start_ns > before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.giltrace", "x.pftrace"]


@pytest.mark.parametrize("begun", [(), ("clock.bin",), ("clock.bin", ".meta.json.4711")])
def test_force_replaces_what_a_recorder_left_that_was_killed_early(begun: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.giltrace").mkdir()
    for name in begun:
        (tmp_path / "x.giltrace" / name).touch()
    ran = giltrace("record", "--light", "--force", "-o", "x", "-c", "pass", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    check(tmp_path, "x")


def test_force_does_not_replace_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "x.giltrace").mkdir()
    (tmp_path / "x.giltrace" / "thesis.tex").write_text("precious")
    ran = giltrace("record", "--light", "--force", "-o", "x", "-c", "pass", folder=tmp_path)
    assert ran.returncode == 2
    assert (tmp_path / "x.giltrace" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch.py"], "nosuch.py"),
        (["--python", "/nosuch/python", "-c", "pass"], "/nosuch/python"),
        (["--python", "/bin/sh", "-c", "pass"], "does not run as a Python"),
        (["-o", "/proc/nosuch/x", "-c", "pass"], "/proc/nosuch/x"),
        (["-o", "/dev/null/x", "-c", "pass"], "/dev/null/x"),
        (["--without", "perf", "-c", "pass"], "perf"),
        ([], "nothing to record"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_with_a_remedy(words: list[str], says: str, tmp_path: Path) -> None:
    ran = giltrace("record", *words, folder=tmp_path)
    assert ran.returncode == 2
    first, remedy = ran.stderr.splitlines()
    assert first.startswith("giltrace: error: ")
    assert says in first
    assert remedy.startswith("  ")
    assert list(tmp_path.iterdir()) == []


def test_default_name_is_the_targets_and_arguments_pass(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import sys; print(sys.argv[1:])")
    ran = giltrace("record", "--light", "job.py", "--force", "-o", "y", folder=tmp_path)
    assert ran.stdout == "['--force', '-o', 'y']\n"
    check(tmp_path, "job")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_loses_events_and_says_so_but_not_the_target(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=True)
    try:
        code = "import os\nf = os.open('/dev/zero', 0)\nfor _ in range(100000): os.read(f, 1)\nprint('done')"
        folder = small / "x.giltrace"
        ran = giltrace("record", "--light", "-o", folder, "-c", code, folder=tmp_path)
        assert "done" in ran.stdout
        timeline = load(folder)
    finally:
        subprocess.run(["umount", small], check=True)
    (process,) = timeline.processes
    assert process.lost > 50_000
    assert 100_000 <= process.lost // 2 + len(process.holds) <= 110_000


def test_an_empty_program_has_a_timeline(tmp_path: Path) -> None:
    ran = giltrace("record", "--light", "-o", "x", "-c", "", folder=tmp_path)
    assert ran.returncode == 0
    (process,) = check(tmp_path, "x").processes
    assert len(process.threads) == 1
    assert np.all(process.holds["end"] >= process.holds["start"])


def test_names_never_collide(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("pass")
    (tmp_path / "job.3.pftrace").write_text("mine")
    for name in ("job", "job.2", "job.4"):
        ran = giltrace("record", "--light", "job.py", folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        check(tmp_path, name)
        assert f"recording {name}.giltrace\n" in ran.stderr
    begun = {name: Meta.read(tmp_path / f"{name}.giltrace").start_ns for name in ("job", "job.2")}
    assert giltrace("record", "--light", "-f", "job.py", folder=tmp_path).returncode == 0
    after = {name: Meta.read(tmp_path / f"{name}.giltrace").start_ns for name in ("job", "job.2")}
    assert (after["job"] > begun["job"], after["job.2"]) == (True, begun["job.2"])
    assert (tmp_path / "job.3.pftrace").read_text() == "mine"


@pytest.mark.parametrize("name", ["plain", "with blank/it's", "-dash", "new\nline", "$HOME", "job.2"])
def test_the_next_commands_can_be_pasted(name: str, tmp_path: Path) -> None:
    ran = giltrace("record", "--light", f"--output={name}", "-c", "pass", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    report, view = (line.removeprefix("next      ") for line in ran.stderr.splitlines()[-2:])
    assert (" report " in report, " view " in view) == (True, True)
    pasted = subprocess.run(["bash", "-c", report], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (pasted.returncode, "Single-threaded" in pasted.stdout) == (0, True), pasted.stderr


def test_no_trace_if_none_is_wanted(tmp_path: Path) -> None:
    assert giltrace("record", "--light", "-o", "x", "-c", "pass", folder=tmp_path).returncode == 0
    ran = giltrace("record", "--light", "-f", "--no-trace", "-o", "x", "-c", "pass", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.giltrace"]
    assert "trace  " not in ran.stderr


def test_folders_that_were_made_go_if_nothing_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("#!/nonexistent/interpreter\n")
    (tmp_path / "odd").chmod(0o755)
    ran = giltrace("record", "--light", "-o", "new/deep/x", "--", "./odd", folder=tmp_path)
    assert ran.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_help_for_a_workload_is_not_recorded(tmp_path: Path) -> None:
    ran = giltrace("record", "convoy", "--help", folder=tmp_path)
    assert (ran.returncode, ran.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert "--steps" in ran.stdout
