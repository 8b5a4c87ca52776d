"""One page about a study, and the tables and pictures beside it."""

from analysis.report.page import PAGE, make_report, write_report

__all__ = ["PAGE", "make_report", "write_report"]
