"""``giltrace workloads``: the bundled programs, and what each shows."""

from __future__ import annotations

from giltrace.launch.bundled import bundled, header


def workloads() -> None:
    """List the bundled workloads by the verdict that each gets.

    \b
    giltrace record NAME             records one
    giltrace record NAME --help      shows its options
    """
    headers = {name: header(path) for name, path in bundled().items()}
    width = max((len(name) for name in headers), default=0)
    for verdict in sorted({known.verdict for known in headers.values()}):
        print(f"{verdict}:")
        for name, known in headers.items():
            if known.verdict == verdict:
                needs = f" (needs {known.needs})" if known.needs else ""
                print(f"  {name:<{width}}  {known.description}{needs}")
        print()
    print("Record one with: giltrace record NAME [its options]; see them with: giltrace record NAME --help")
