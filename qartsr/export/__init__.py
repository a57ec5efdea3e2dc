"""A packed model as a graph of standard operations, which runs without this project: ONNX and OpenVINO."""

from qartsr.export.graph import FORMATS, check_target, serialized, write_onnx, write_openvino
from qartsr.export.layers import inexpressible
from qartsr.export.norms import NormWriter, imposed, observed, plain
from qartsr.export.parts import PARTS, build_model, build_picture, step
from qartsr.export.skeleton import skeleton

__all__ = [
    "FORMATS",
    "PARTS",
    "NormWriter",
    "build_model",
    "build_picture",
    "check_target",
    "imposed",
    "inexpressible",
    "observed",
    "plain",
    "serialized",
    "skeleton",
    "step",
    "write_onnx",
    "write_openvino",
]
