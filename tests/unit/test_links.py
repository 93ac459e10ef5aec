"""Links to what another user's tracer writes: while its process lives, and a look longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from giltrace.launch.attach.links import Links
from giltrace.process.folder import Folder
from giltrace.recording.door import Source
from giltrace.recording.live import is_alive


def opened() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_a_link_goes_with_its_process(tmp_path: Path) -> None:
    written, recording = tmp_path / "written", tmp_path / "recording"
    written.mkdir()
    recording.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lives, over = f"gil-{os.getpid()}-0.bin", f"stacks-{ended.pid}-0.bin"
    for name in (lives, over, "other"):
        (written / name).write_bytes(name.encode())
    with Folder.own(written) as files:
        links, before = Links(files, recording), opened()
        links.look()
        assert {path.name for path in recording.iterdir()} == {lives, over}
        with Source(recording / over) as source:
            assert source.data() == over.encode()
        links.look()  # whoever follows it sees its end
        assert (recording / over).is_symlink()
        for _ in range(2):
            links.look()
            assert {path.name for path in recording.iterdir()} == {lives}
        assert opened() == before + 1
        links.close()
        assert not list(recording.iterdir())
        assert opened() == before


def test_what_is_no_id_is_nobodys() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(2**32 - 1)
