"""A study, opened for reading: which Runs it wants, which have rows, and what these hold."""

from analysis.load.study import AddedColumn, Incomplete, Study, add_column, open, require_rows
from analysis.load.tables import table

__all__ = ["AddedColumn", "Incomplete", "Study", "add_column", "open", "require_rows", "table"]
