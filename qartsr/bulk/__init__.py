"""Very many images, from a folder or a bucket to another, on one machine or on a cluster, whatever dies meanwhile."""

from qartsr.bulk.copies import NAME, Copies
from qartsr.bulk.job import Alone, Bulk, Engine, Tally, upscale_bulk
from qartsr.bulk.manifest import Manifest, Row, open_manifest
from qartsr.bulk.place import open_place

__all__ = [
    "NAME",
    "Alone",
    "Bulk",
    "Copies",
    "Engine",
    "Manifest",
    "Row",
    "Tally",
    "open_manifest",
    "open_place",
    "upscale_bulk",
]
