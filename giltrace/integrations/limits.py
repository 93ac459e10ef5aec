"""What ``@pytest.mark.gil`` asks of a test, and whether a test kept to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from giltrace.analysis.durations import duration, nanoseconds

if TYPE_CHECKING:
    from giltrace.integrations.seen import Seen


@dataclass(frozen=True)
class Limits:
    """`max_hold` and `max_wait` are in ns, `releases` is a share of 1; None is no limit."""

    max_hold: int | None = None
    max_wait: int | None = None
    releases: float | None = None

    @classmethod
    def of(cls, marks: Iterable[tuple[tuple[object, ...], Mapping[str, object]]]) -> Limits:
        """Of the arguments of a test's marks, the closest first. Raises `ValueError` in one line."""
        given: dict[str, Any] = {}
        names = [one.name for one in fields(cls)]
        for unnamed, named in marks:
            if unnamed:
                raise ValueError(f"gil({unnamed[0]!r}): name the limit: {', '.join(names)}")
            if not named:
                raise ValueError(f"gil() has no limit: give it one of {', '.join(names)}")
            for name, value in named.items():
                if name not in names:
                    raise ValueError(f"gil({name}={value!r}): there is no such limit; there are {', '.join(names)}")
                given.setdefault(name, _read(name, value))
        return cls(**given)

    def broken(self, seen: Seen, name: str) -> str:
        """Say in a few lines which limits the test `name` did not keep to; "" if none."""
        from giltrace.integrations.releases import HOW_TO_RELEASE, too_little_released

        told = []
        if self.max_hold is not None and seen.stubborn_ns > self.max_hold:
            place = seen.where(seen.own_holds[seen.longest]) or "code that nobody saw"
            told.append(
                f"held the GIL for {duration(seen.stubborn_ns)} at a time; max_hold is {duration(self.max_hold)}\n"
                f"  in {place}\n"
                f"  to do: {HOW_TO_RELEASE}"
            )
        if self.max_wait is not None and seen.longest_wait_ns > self.max_wait:
            told.append(
                f"waited {duration(seen.longest_wait_ns)} for the GIL; max_wait is {duration(self.max_wait)}\n"
                f"  for {seen.culprit_of_wait}\n"
                f"  to do: {HOW_TO_RELEASE}"
            )
        released = "" if self.releases is None else too_little_released(seen, self.releases, "it")
        return "\n".join(f"{name} {one}" for one in [*told, *filter(None, [released.removeprefix("it ")])])


def _read(name: str, value: object) -> int | float:
    if name == "releases":
        from giltrace.integrations.releases import check_share

        try:
            check_share(value)
        except ValueError as error:
            raise ValueError(f"gil(releases={value!r}): {error}") from None
        assert isinstance(value, int | float)
        return value
    found = nanoseconds(value) if isinstance(value, str) else None
    if found is None:
        wanted = 'write a number and ns, us, ms, s or m, like "5ms"'
        raise ValueError(f"gil({name}={value!r}): {value!r} is no duration: {wanted}")
    return found
