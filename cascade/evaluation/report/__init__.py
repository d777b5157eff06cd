"""Shows an evaluation to people.

The table needs nothing but the light install; the page needs the extra `report`.
"""

from cascade.evaluation.report.page import prepare_report, write_report
from cascade.evaluation.report.table import render_table

__all__ = ["prepare_report", "render_table", "write_report"]
