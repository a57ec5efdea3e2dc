"""Where a pipeline's model comes from, and how the same is written again.

Upscaling knows files only. Addresses (``models:/...``) are resolved by whoever registers for their scheme;
:mod:`qartsr.api` registers the model registry, so ``from qartsr import OneStepSRPipeline`` brings it along.

An engine may have rebuilt the model in memory, so what is saved is what was loaded: the files, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qartsr.artifact.header import read_head
from qartsr.errors import QartsrError
from qartsr.files import (
    read_object,
    reading,
    replacing,
    scratch_beside,
    sha256_bytes,
    sha256_file,
    sha256_tree,
    sweep,
    write_json,
    writing,
)

if TYPE_CHECKING:
    from qartsr.models import Backbone

Resolve = Callable[[str], Path]
"""Turns an address into a local package file. Raises QartsrError."""

_RESOLVERS: dict[str, Resolve] = {}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""At least two letters, so that a Windows drive is a path."""


def register_resolver(scheme: str, resolve: Resolve) -> None:
    """Let ``resolve`` answer for addresses that begin with ``scheme:/``; the one before it is forgotten."""
    _RESOLVERS[scheme] = resolve


def local(source: str) -> Path:
    """The path that ``source`` is or, for an address, what its resolver makes of it. Raises QartsrError."""
    match = _ADDRESS.match(source)
    if match is None:
        return Path(source)
    if match[1] not in _RESOLVERS:
        known = ", ".join(f"{scheme}:/" for scheme in sorted(_RESOLVERS)) or "none"
        do = f"give a path, or an address of a known kind (here: {known}); models:/ needs `from qartsr import ...`"
        raise QartsrError(f"nobody here can resolve {match[1]}:/ addresses", source, do)
    return _RESOLVERS[match[1]](source)


def is_address(source: str) -> bool:
    """Whether ``source`` is an address, such as ``models:/NAME/1``, and no path."""
    return _ADDRESS.match(source) is not None


def check_source(source: str) -> None:
    """Raise QartsrError where there is no model; of a package the head is read, what an address names is fetched."""
    path = local(source)
    with reading(path):
        if not is_floating(path):
            read_head(path / WEIGHTS if path.is_dir() else path)


WEIGHTS, SETTINGS = "model.safetensors", "qartsr.json"
"""Of a package, and of a floating-point model (:mod:`qartsr.models.folder`)."""


class Origin(Protocol):
    """A source of a model."""

    def write(self, folder: Path) -> None:
        """Make ``folder``, which does not exist, such that ``from_pretrained(folder)`` loads the same model."""
        ...

    def digest(self) -> str:
        """Hex SHA-256 of what the model is made of."""
        ...


class Memory:
    """The model was handed over by its maker."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def write(self, folder: Path) -> None:
        """The floating-point model. Raises QartsrError for quantized layers, which only a package can hold."""
        if hasattr(self._model, "state_dict"):
            from qartsr.models import Backbone, save_model
            from qartsr.packing import PackedLayer
            from qartsr.quantize import quant_layers, quantizable

            if isinstance(self._model, Backbone):  # what an engine makes is none
                packed = any(isinstance(part, PackedLayer) for part in self._model.modules())
                if not packed and quantizable(self._model) and not quant_layers(self._model):
                    save_model(self._model, folder)
                    return
        do = "write a package with qartsr.packing.write_package"
        raise QartsrError("a quantized model that was not loaded from a file has none to copy", str(folder), do)

    def digest(self) -> str:
        """Of all that is stored in the model, or of the package whose graphs it is."""
        if not hasattr(self._model, "state_dict"):
            return str(self._model.identity)
        import torch

        settings = [getattr(self._model, name, None) for name in ("kind", "step", "facts", "align")]
        digest = hashlib.sha256(repr(settings).encode())
        for name, value in self._model.state_dict().items():
            digest.update(name.encode())
            if isinstance(value, torch.Tensor):
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Stored:
    """The model was read from files; they are remembered as they were then."""

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        self._root, self._names = root.absolute(), names
        self._state = self._look()

    def write(self, folder: Path) -> None:
        """Copy the files; beside a package also its summary and model card. Raises QartsrError if they changed."""
        for name in self._names:
            _copy(self._root / name, folder / name)
        if self._look() != self._state:
            raise QartsrError("has changed since it was loaded", str(self._root), "load it again, then save it")

    def digest(self) -> str:
        """Of the files. Raises QartsrError when one is gone."""
        return sha256_bytes("\n".join(sha256_file(self._root / name) for name in self._names).encode())

    def _look(self) -> list[tuple[int, int, int]]:
        try:
            looks = [(self._root / name).stat() for name in self._names]
        except OSError as error:
            raise QartsrError(f"is gone ({error.strerror})", error.filename, "load the model again") from error
        return [(look.st_ino, look.st_size, look.st_mtime_ns) for look in looks]


class Package:
    """The model was read from a package file, whatever its name."""

    def __init__(self, file: Path) -> None:
        self._file, self._stored = file.absolute(), Stored(file.parent, (file.name,))

    def write(self, folder: Path) -> None:
        """The file as ``model.safetensors``, with the summary and card beside it if they are its own."""
        self._stored.write(folder)
        (folder / self._file.name).rename(folder / WEIGHTS)
        self._describe(folder, sha256_file(folder / WEIGHTS))

    def digest(self) -> str:
        """Of the file, the one that a registered version has. Raises QartsrError when it cannot be read."""
        return sha256_file(self._file)

    def _describe(self, folder: Path, sha256: str) -> None:
        """Copy its summary.json and README.md; without them (a registered model), say what the package itself says."""
        summary = self._file.with_name("summary.json")
        if summary.is_file() and read_object(summary).get("sha256") == sha256:
            for companion in (summary, summary.with_name("README.md")):
                if companion.is_file():
                    _copy(companion, folder / companion.name)
            return
        header, size = read_head(folder / WEIGHTS).header, (folder / WEIGHTS).stat().st_size
        known = {"bits": header.bits, "method": header.method, "sha256": sha256, "bytes": size}
        write_json(folder / "summary.json", {**known, "metrics": {}, "fp": {}})


def is_package(origin: Origin) -> bool:
    """Whether the model was read from a package, whose engines decide what they compute in."""
    return isinstance(origin, Package)


def is_floating(path: Path) -> bool:
    """Whether ``path`` is the folder of a floating-point model."""
    return path.is_dir() and (path / SETTINGS).is_file()


def open_source(path: Path) -> tuple[Backbone, Origin]:
    """The model of a package file, of a folder that holds one, or of a floating-point model folder."""
    from qartsr.models import load_model
    from qartsr.models.folder import stored_files
    from qartsr.packing import load_package

    with reading(path):
        if is_floating(path):
            return load_model(path), Stored(path, stored_files(path))
        file = path / WEIGHTS if path.is_dir() else path
        return load_package(file), Package(file)


def save(origin: Origin, folder: Path) -> None:
    """Write ``origin`` as ``folder``, which appears whole or not at all.

    Raises QartsrError when ``folder`` is a file or holds anything else; the same again is left as it is.
    """
    temporary = scratch_beside(folder)
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise QartsrError("is a file", str(folder), "name a folder")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            origin.write(temporary)
            if not folder.exists() or not any(folder.iterdir()):
                os.replace(temporary, folder)
            elif sha256_tree(folder) != sha256_tree(temporary):
                raise QartsrError("holds other files", str(folder), "name a new folder, or empty this one")
            sweep(folder)
        finally:
            if "\0" not in str(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
