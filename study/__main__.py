"""`python -m study` is the command `study`."""

import sys

from study.command.cli import main

sys.exit(main())
