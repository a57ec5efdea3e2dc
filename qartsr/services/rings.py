"""``python -P rings.py FOLDER HOST object=PORT container=PORT account=PORT``: the rings of a one-folder Swift.

A process of its own, because importing Swift patches the interpreter; run by path, so nothing of qartsr is imported.
Equal arguments give equal rings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swift.common.ring import RingBuilder

_PART_POWER = 6


def build(folder: Path, host: str, part: str, port: int) -> None:
    """One replica on one device."""
    builder = RingBuilder(_PART_POWER, 1, 0)
    device = {"id": 0, "region": 1, "zone": 1, "ip": host, "port": port, "device": "d1", "weight": 1.0}
    builder.add_dev({**device, "replication_ip": host, "replication_port": port, "meta": ""})
    builder.rebalance(seed=0)
    builder.get_ring().save(str(folder / f"{part}.ring.gz"))


if __name__ == "__main__":
    for argument in sys.argv[3:]:
        name, _, number = argument.partition("=")
        build(Path(sys.argv[1]), sys.argv[2], name, int(number))
