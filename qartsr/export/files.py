"""A graph as files: ONNX (one file) or OpenVINO IR (``.xml`` and ``.bin``), written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from qartsr.errors import QartsrError
from qartsr.files import replacing, write_bytes
from qartsr.runtime.graphs import import_openvino

_LIMIT = 2**31 - 1
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
"""By name, the ending of the file."""


def check_target(path: Path, form: str) -> None:
    """Raises QartsrError when ``path`` does not end as files of this format do, or is a folder."""
    if path.suffix != FORMATS[form]:
        raise QartsrError(f"is no name for {form}", str(path), f"let it end in {FORMATS[form]}")
    files = (path, path.with_suffix(".bin")) if form == "openvino" else (path,)
    if folder := next((each for each in files if each.is_dir()), None):
        raise QartsrError("is a folder", str(folder), "choose another name")


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of an ONNX file. Raises QartsrError above 2 GiB, which the format does not have in one file."""
    if model.ByteSize() > _LIMIT:
        what = "has more than 2 GiB, which one ONNX file cannot hold"
        raise QartsrError(what, "the graph", "export a quantized model")
    return model.SerializeToString(deterministic=True)


def write_onnx(path: Path, model: onnx.ModelProto) -> None:
    """Write ONNX. Raises QartsrError when it cannot be written."""
    write_bytes(path, serialized(model))


def write_openvino(path: Path, model: onnx.ModelProto) -> None:
    """Write OpenVINO IR: ``path`` (.xml) and the weights beside it (.bin). Raises QartsrError without openvino."""
    openvino: Any = import_openvino()
    core = openvino.Core()
    with TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        graph = core.read_model(serialized(model))
        for fact in model.metadata_props:
            graph.set_rt_info(fact.value, fact.key.split("."))
        openvino.save_model(graph, whole, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the description last: where it is, everything is
            with replacing(path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(whole.with_suffix(suffix).read_bytes())
