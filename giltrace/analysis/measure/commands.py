"""What a process runs, by its command line."""

from __future__ import annotations

from pathlib import PurePath

#: The interpreter's options whose value is the next word.
_OPTIONS_WITH_VALUE = frozenset({"-X", "-W"})


def words_of(cmdline: str) -> list[str]:
    """The command line led by what tells Python processes apart: the script or module, without its folder.

    A process that gave itself a title, as ``gunicorn: worker [app]``, is told by that.
    """
    words = cmdline.split()
    if words and words[0].endswith(":"):
        return words
    at = 1
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-c", "-m"):
        at += 2 if words[at] in _OPTIONS_WITH_VALUE else 1
    if words[at : at + 1] == ["-m"] and at + 1 < len(words):
        return words[at + 1 :]
    if at < len(words) and words[at] not in ("-c", "-m"):
        return [PurePath(words[at]).name, *words[at + 1 :]]
    return [PurePath(words[0]).name, *words[1:]] if words else ["python"]
