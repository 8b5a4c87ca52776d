"""One page about a study, and the tables and pictures beside it."""

from analysis.report.page import PAGE, main, write_report

__all__ = ["PAGE", "main", "write_report"]
