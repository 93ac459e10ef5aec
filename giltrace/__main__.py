"""``python -m giltrace``: the same as the ``giltrace`` command."""

from giltrace.cli.app import main

if __name__ == "__main__":
    main()
