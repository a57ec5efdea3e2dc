"""What a model costs: parameters, operations and bytes, from its architecture alone (docs/cost.md)."""

from qartsr.cost.package_size import package_size
from qartsr.cost.report import Cost, as_text, cost_of
from qartsr.cost.subject import Subject, qartsr_method, subject
from qartsr.cost.trace import Work, trace

__all__ = ["Cost", "Subject", "Work", "as_text", "cost_of", "package_size", "qartsr_method", "subject", "trace"]
