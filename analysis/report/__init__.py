"""Report a study as one page with tables and figures."""

from analysis.report.page import PAGE, make_report, write_report

__all__ = ["PAGE", "make_report", "write_report"]
