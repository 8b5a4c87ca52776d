"""Open a study for reading: the Runs that its search space lists, and their rows."""

from typing import TYPE_CHECKING

from analysis.load.study import (
    AddedColumn,
    Incomplete,
    Study,
    add_column,
    open_study,
    require_rows,
)
from analysis.load.tables import from_dataframe
from analysis.load.tables import table as table
from study.deprecation import renamed

__all__ = [
    "AddedColumn",
    "Incomplete",
    "Study",
    "add_column",
    "from_dataframe",
    "open_study",
    "require_rows",
]

DEPRECATED = {"open": "analysis.load.open_study"}

if not TYPE_CHECKING:  # mypy would accept any name of a module with __getattr__
    __getattr__ = renamed(__name__, DEPRECATED)
