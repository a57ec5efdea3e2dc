"""Table 2 of QArtSR (2503.05584), and the parts of its floating-point row (PassionSR, 2411.17106, Table 1)."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row: parameters in millions, operations in billions (two per multiply-accumulate), at 512 x 512."""

    params_m: float
    ops_g: float


TABLE_2 = {
    "fp": Published(1303, 4523),
    "w4a4": Published(122, 531),
    "w3a3": Published(92, 398),
    "w2a2": Published(62, 266),
}
SIZE = 512
"""Side of the output the table is about."""

PARTS = {
    "UNet": Published(865.785, 2 * 339.241),
    "VAE": Published(83.614, 2 * 1781.123),
    "tagger": Published(160.335, 2 * 126.591),
    "text encoder": Published(193.055, 2 * 14.856),
}
"""PassionSR gives thousands of parameters and multiply-accumulates."""
