"""A place in the program: whose thread was where."""

from __future__ import annotations

from dataclasses import dataclass

#: A function, its file and the line; the line is 0 and the file empty where they are not known.
Frame = tuple[str, str, int]


def frame_text(frame: Frame) -> str:
    """A frame in words, ``function (file:line)``, as far as it is known."""
    function, file, line = frame
    return f"{function} ({file}:{line})" if file and line > 0 else f"{function} ({file})" if file else function


@dataclass(frozen=True)
class Site:
    """Where a thread was: its role (`analysis.roles`), its innermost Python frame, the *leaf* (`function`, `file`,
    `line`), and its *own line*, the innermost one in the user's code (`own_function`, `own_file`, `own_line`).

    Where one of them is not known, its texts are empty and its line is 0. `own` says that it is no code of the program:
    giltrace runs it there, for a collector.
    """

    thread: str
    function: str = ""
    file: str = ""
    line: int = 0
    own: bool = False
    own_function: str = ""
    own_file: str = ""
    own_line: int = 0

    @property
    def leaf(self) -> str:
        """Its innermost frame in words: of the file the last part only."""
        return frame_text((self.function, self.file.rpartition("/")[2], self.line))

    @property
    def own_frame(self) -> Frame:
        """Its own line, or the leaf where it has none."""
        if self.own_function:
            return self.own_function, self.own_file, self.own_line
        return self.function, self.file, self.line

    @property
    def where(self) -> str:
        """The same in words: of the file the last part only."""
        function, file, line = self.own_frame
        return frame_text((function, file.rpartition("/")[2], line))
