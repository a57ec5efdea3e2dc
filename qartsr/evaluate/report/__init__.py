"""One self-contained page about a run: table, pictures, error maps, plots. Same inputs, same bytes."""

from qartsr.evaluate.report.inputs import Inputs
from qartsr.evaluate.report.write import write_report

__all__ = ["Inputs", "write_report"]
