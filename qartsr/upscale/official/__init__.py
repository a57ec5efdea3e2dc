"""OSEDiff's published inference script, step by step: its sizes, tiles, rounding and colour fix (fp32).

Source of every fact: the official repository (cswry/OSEDiff, test_osediff.py, osediff.py, my_utils/). Written anew and
proven against its tensors and images in ``tests/parity``.
"""

from qartsr.upscale.official.image import restore_image
from qartsr.upscale.official.network import Tiling, Trace, restore

__all__ = ["Tiling", "Trace", "restore", "restore_image"]
