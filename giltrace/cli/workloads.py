"""``giltrace workloads``: the bundled programs, and what each shows."""

from __future__ import annotations

from giltrace.launch.bundled import bundled, description


def workloads() -> None:
    """List the bundled workloads with what each shows; ``giltrace record NAME`` finds them by name."""
    programs = bundled()
    width = max((len(name) for name in programs), default=0)
    for name, path in programs.items():
        print(f"{name:<{width}}  {description(path)}")
    print("\nRecord one with: giltrace record NAME [its options]; see them with: giltrace record NAME --help")
