"""What makes a flight recorder dump: a rule is a file here, and a line in `RULES`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giltrace.collectors.rules.base import Rule

#: By the first word of a rule, or the whole of one that is a word, where it is defined.
RULES = {
    "wait": "limits:Wait",
    "hold": "limits:Hold",
    "stall": "stall:Stall",
    "request": "request:Request",
    "lock": "lock:Lock",
    "deadlock": "deadlock:Deadlock",
    "held": "held:Held",
    "USR1": "signals:Signal",
    "USR2": "signals:Signal",
    "HUP": "signals:Signal",
    "QUIT": "signals:Signal",
}
#: What may be typed, as examples.
EXAMPLES = (
    *("wait>50ms", "hold>100ms", "stall>100ms", "request>250ms", "lock>50ms", "deadlock", "held>95%/5s"),
    *("USR1", "USR2", "HUP", "QUIT"),
)


def parse(text: str) -> Rule:
    """The rule that `text` is. Raises ValueError, with what is wrong, for one that is none."""
    word, more, value = (part.strip() for part in text.partition(">"))
    home = RULES.get(word) or RULES.get(word.upper().removeprefix("SIG"))
    if home is None:
        raise ValueError(f"{text!r} is no reason to dump")
    module, _, name = home.partition(":")
    rule: type[Rule] = getattr(import_module(f"{__name__}.{module}"), name)
    if rule.has_value != bool(more):
        example = next(one for one in EXAMPLES if RULES[one.partition(">")[0]] == home)
        raise ValueError(f"{text!r} is no reason to dump: write {example}")
    return rule(text.strip(), value)
