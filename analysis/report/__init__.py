"""Report a study: one page, with tables and figures beside it."""

from analysis.report.page import PAGE, make_report, write_report

__all__ = ["PAGE", "make_report", "write_report"]
