"""The report as one file for a browser, which works offline."""

from giltrace.reports.html.page import write_html

__all__ = ["write_html"]
