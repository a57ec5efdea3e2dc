"""Checkpoints of long work: one safetensors file, written by write-then-rename, deleted on success.

They live in an ignored scratch folder ``<work>/<stage>/<hash of inputs>-<hash of code>/``, so a rerun with the same
inputs and the same code continues, and a rerun with others never sees them.
"""

from __future__ import annotations

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
from qartsr.files import replacing, sha256_bytes, sha256_tree

State = tuple[dict[str, Tensor], dict[str, Any]]


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
        """Replace the checkpoint. ``position`` is JSON-able."""
        with replacing(self._path) as temporary:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, temporary, metadata={"position": json.dumps(position)})
        self._saved = time.monotonic()

    def load(self) -> State | None:
        """Tensors and position of the last save, or None at a fresh start."""
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as handle:
                position: dict[str, Any] = json.loads(handle.metadata()["position"])
                return {name: handle.get_tensor(name) for name in handle.keys()}, position  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise QartsrError(
                f"is not a usable checkpoint ({error})", str(self._path), "delete it to start anew"
            ) from error

    def finish(self) -> None:
        """Remove the scratch folder, if this process writes it: the stage's outputs are complete."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)
