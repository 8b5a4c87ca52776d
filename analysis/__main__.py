"""`python -m analysis report ROOT …`: see `analysis.report`."""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Runs the verb in argv[0]; returns the exit status: 2 for an unknown one."""
    if argv[:1] == ["report"]:
        from analysis import report

        return report.main(argv[1:])
    print("usage: python -m analysis report ROOT [--study NAME] [--partial] [--out DIR]")
    return 0 if argv[:1] in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
