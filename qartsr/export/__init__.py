"""A packed model as a graph of standard operations, which runs without this project: ONNX and OpenVINO."""

from qartsr.export.files import FORMATS, check_target, import_openvino, serialized, write_onnx, write_openvino
from qartsr.export.layers import GRAPHS
from qartsr.export.norms import NormWriter, imposed, observed, plain
from qartsr.export.parts import PARTS, build_model, build_part, build_picture, step

__all__ = [
    "FORMATS",
    "GRAPHS",
    "PARTS",
    "NormWriter",
    "build_model",
    "build_part",
    "build_picture",
    "check_target",
    "import_openvino",
    "imposed",
    "observed",
    "plain",
    "serialized",
    "step",
    "write_onnx",
    "write_openvino",
]
