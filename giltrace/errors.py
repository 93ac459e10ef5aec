"""Every error that giltrace shows a person: what happened, and what to type next."""

from __future__ import annotations


class GiltraceError(Exception):
    """Base of all expected failures.

    ``message`` states the cause in one line; ``remedy`` tells what to do about it; ``exit_code``
    is what the command line exits with. As text it is both, on two lines.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class UsageError(GiltraceError):
    """The command line asks for something that does not exist or cannot be combined."""


class OutputError(GiltraceError):
    """The output cannot be written, or would overwrite what is there."""


class TargetError(GiltraceError):
    """The program to record cannot be started or cannot be traced."""


class RecordingError(GiltraceError):
    """A recording cannot be read: missing, from another version, or damaged beyond salvage."""

    @classmethod
    def unreadable(cls, what: object, error: OSError) -> RecordingError:
        """The system refused to read `what`."""
        return cls(f"cannot read {what}: {error.strerror}", "see that it is all there, and that you may read it")


class MergeError(GiltraceError):
    """Another profiler's file is not what it should be, or cannot be brought to a recording's clock."""
