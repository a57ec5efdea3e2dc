"""Quality of a model on the test split: images, error maps, metrics against HR and against the FP output.

The page that shows it all is :mod:`qartsr.evaluate.report`; it needs matplotlib and jinja2, this package does not.
"""

from qartsr.evaluate.pictures import contact_sheet
from qartsr.evaluate.scenes import Scene, Scenes, open_scenes
from qartsr.evaluate.scores import Row, Scores
from qartsr.evaluate.subjects import evaluate_quantized, evaluate_reference, meter

__all__ = [
    "Row",
    "Scene",
    "Scenes",
    "Scores",
    "contact_sheet",
    "evaluate_quantized",
    "evaluate_reference",
    "meter",
    "open_scenes",
]
