"""Run the command `study` as `python -m study`."""

import sys
from pathlib import Path

# `python -m` puts the working directory first on the import path: a torch.py there would shadow torch.
if not sys.flags.safe_path and Path(sys.path[0]).absolute() == Path.cwd():
    sys.path.append(sys.path.pop(0))

from study.cli.main import main

sys.exit(main())
