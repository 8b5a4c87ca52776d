"""Run the command `study` as `python -m study`."""

import sys
from pathlib import Path

# `python -m` puts the folder where it is given before all others: a torch.py of the user's there would be
# taken for torch.
if not sys.flags.safe_path and Path(sys.path[0]).absolute() == Path.cwd():
    sys.path.append(sys.path.pop(0))

from study.cli.main import main

sys.exit(main())
