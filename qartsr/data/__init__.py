"""Images: where they come from, how LR is made from HR, and the pairs that training and calibration use."""

from qartsr.data.calibration import Calibration, load_calibration, write_calibration
from qartsr.data.dataset import write_dataset
from qartsr.data.degradation import degrade
from qartsr.data.pairs import Pair, crop_batch, load_pairs
from qartsr.data.photographs import PHOTOGRAPHS
from qartsr.data.stream import Stream

__all__ = [
    "PHOTOGRAPHS",
    "Calibration",
    "Pair",
    "Stream",
    "crop_batch",
    "degrade",
    "load_calibration",
    "load_pairs",
    "write_calibration",
    "write_dataset",
]
