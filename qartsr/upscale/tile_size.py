"""How large a tile should be: none at all while the memory allows it, else the one that costs least.

A tiled picture is run through the network up to three times: in two rounds of at most 16 tiles to observe
(:mod:`qartsr.upscale.shared_norms`), and once for the picture. So tiles cost about three times what they save until
there are many more than 16; what makes a whole picture expensive is its memory and, far later, the time of attention,
which grows with its square. The choice depends on model and picture only, never on the machine, so that results do not.
"""

from __future__ import annotations

from qartsr.artifact.load import Load
from qartsr.upscale.places import starts
from qartsr.upscale.tiling import PROBES

BUDGET = 4 << 30
"""Bytes that a run of the network may take by the estimate below."""
LEAST, STEP = 384, 64
"""Sides that are tried, in output pixels: smaller tiles differ more from the whole picture."""
SLACK = 1.15
"""A larger tile is taken as long as it costs at most so many times the cheapest."""


def tile_for(load: Load, height: int, width: int, overlap: int, rounds: int) -> int:
    """The side of a tile, or 0 for none, of an output of (height, width) pixels, for a network that needs ``load``.

    None is longer than the network is meant for, but where the overlap asks for it.
    """
    longest = max(height, width)
    most = load.window or longest + STEP
    least = max(min(LEAST, most), -(-2 * overlap // STEP) * STEP)
    sides = [least]
    while sides[-1] < longest and sides[-1] + STEP <= most and load.bytes((sides[-1] + STEP) ** 2) <= BUDGET:
        sides.append(sides[-1] + STEP)
    costs = {side: cost(load, height, width, side, overlap, rounds) for side in sides}
    cheapest = SLACK * min(costs.values())
    if load.bytes(height * width) <= BUDGET and longest <= most and load.work(height * width) <= cheapest:
        return 0
    return max(side for side in sides if costs[side] <= cheapest)


def cost(load: Load, height: int, width: int, tile: int, overlap: int, rounds: int) -> float:
    """The network's work in all."""
    count = len(starts(height, tile, overlap, 1)) * len(starts(width, tile, overlap, 1))
    runs = 1 if count == 1 else count + rounds * min(PROBES, count)
    return runs * load.work(min(tile, height) * min(tile, width))
