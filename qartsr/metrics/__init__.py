"""Image quality metrics through pyiqa: full-size images, no border crop, never a number without its real weights."""

from qartsr.metrics.iqa import METRICS, Meter, Metric, build
from qartsr.metrics.weights import FETCHABLE, Availability, availability, demand_libraries, fetch

__all__ = [
    "FETCHABLE",
    "METRICS",
    "Availability",
    "Meter",
    "Metric",
    "availability",
    "build",
    "demand_libraries",
    "fetch",
]
