"""Checkpoints of long work: one safetensors file, written by write-then-rename, deleted on success.

They live in an ignored scratch folder ``<work>/<stage>/<hash of inputs>-<hash of code>/``, so a rerun with the same
inputs and the same code continues, and a rerun with others never sees them. What is damaged there, in a single bit, is
told on standard error and not used: the work begins anew, so a rerun gives the same bytes as ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qartsr.code_files import code_hash
from qartsr.errors import QartsrError
from qartsr.files import replacing, sha256_bytes, sha256_tree, write_text

State = tuple[dict[str, Tensor], dict[str, Any]]


_TOLD = "sha256 and position"


def scratch_folder(work: Path, stage: str, module: str, settings: Any, inputs: list[Path]) -> Path:
    """``work/stage/inputs-code``, two hashes: of what is computed, and of the code that computes it.

    The first covers the settings (JSON-able), torch's version and the contents of ``inputs``; the second every file
    that ``module`` (``stages.retrain``) imports. Where a run of other code was interrupted, a line on standard error
    says that this one begins anew.
    """
    parts = [json.dumps(settings, sort_keys=True), torch.__version__, *(sha256_tree(path) for path in inputs)]
    same = sha256_bytes("\n".join(parts).encode())[:16]
    folder = work / stage / f"{same}-{code_hash(module)[:16]}"
    others = [other for other in sorted((work / stage).glob(f"{same}-*")) if other != folder]
    if others and not folder.exists() and os.environ.get("RANK", "0") == "0":
        do = "this run begins anew (going back to that code would continue there)"
        print(f"note: {others[0]}: was left by an interrupted run of other code; {do}", file=sys.stderr)
    return folder


def seal(path: Path) -> None:
    """Note the hash of a finished file or folder beside it, for :func:`intact`."""
    write_text(_seal(path), sha256_tree(path))


def intact(path: Path) -> bool:
    """Whether ``path`` was sealed and nothing of it has changed since; a change is told on standard error."""
    if not _seal(path).is_file() or not path.exists():
        return False
    if _seal(path).read_bytes() == sha256_tree(path).encode():
        return True
    _tell_damage(path)
    return False


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _tell_damage(path: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {path}: is damaged and is not used; the work that it stood for begins anew", file=sys.stderr)


def _digest(tensors: dict[str, Tensor], position: str) -> str:
    """Of all values, their names, types and shapes, and the position."""
    digest = hashlib.sha256(position.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Checkpoint:
    """The latest state of one training run. ``seconds``: the most work, in seconds, that a kill may cost.

    Of several processes that train together all load; one writes, and the others' checkpoints are never due.
    """

    def __init__(self, folder: Path, seconds: float, writes: bool = True) -> None:
        self.folder, self.seconds, self.writes = folder, seconds, writes
        self._path = folder / "checkpoint.safetensors"
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is for this process to save and ``seconds`` have passed since the last time."""
        return self.writes and time.monotonic() - self._saved >= self.seconds

    def save(self, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
        """Replace the checkpoint. ``tensors``: of any shape; ``position`` is JSON-able."""
        with replacing(self._path) as temporary:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            text = json.dumps(position)
            digest = _digest(contiguous, text)
            save_file(contiguous, temporary, metadata={_TOLD: f"{digest} {text}"})  # one key: several have no order
        self._saved = time.monotonic()

    def load(self) -> State | None:
        """Tensors and position of the last save, or None at a fresh start and where the save is damaged."""
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as handle:
                digest, _, position = (handle.metadata() or {})[_TOLD].partition(" ")
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            if _digest(tensors, position) == digest:
                return tensors, json.loads(position)
        except PermissionError as error:
            raise QartsrError("cannot be read", str(self._path), "mend its permissions") from error
        except (OSError, SafetensorError, KeyError, ValueError):
            pass
        _tell_damage(self._path)
        if self.writes:
            self._path.replace(self._path.with_suffix(".damaged"))
        return None

    def finish(self) -> None:
        """Remove the scratch folder, if this process writes it: the stage's outputs are complete."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)
