"""Integer codes, packed layers, and the package file they travel in."""

from qartsr.packing.bits import pack_bits, packed_size, unpack_bits
from qartsr.packing.model_card import model_card
from qartsr.packing.pack import pack_layer, pack_model
from qartsr.packing.package import add_graphs, load_package, open_package, read_header, write_package
from qartsr.packing.packed_layer import PackedLayer
from qartsr.packing.size_breakdown import Inventory, inspect
from qartsr.packing.verify import layer_facts, prove_equal

__all__ = [
    "Inventory",
    "PackedLayer",
    "add_graphs",
    "inspect",
    "layer_facts",
    "load_package",
    "model_card",
    "open_package",
    "pack_bits",
    "pack_layer",
    "pack_model",
    "packed_size",
    "prove_equal",
    "read_header",
    "unpack_bits",
    "write_package",
]
