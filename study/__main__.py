"""Run the command `study` as `python -m study`."""

import sys
from pathlib import Path

# `python -m` puts the working directory first on the import path: a torch.py there would shadow torch.
if (
    __name__ == "__main__"
    and not sys.flags.safe_path
    and Path(sys.path[0]).absolute() == Path.cwd()
):
    sys.path.append(sys.path.pop(0))

from study.signals import INTERRUPTED_STATUS, interrupt_on_signals


def main() -> int:
    """Perform the command line of this process; return the exit status."""
    try:
        # Before the imports, which take about a second.
        with interrupt_on_signals("interrupted", is_last=True):
            from study.cli.main import main

            return main()
    except KeyboardInterrupt:
        print("interrupted")
        return INTERRUPTED_STATUS


if __name__ == "__main__":
    sys.exit(main())
