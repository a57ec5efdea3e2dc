"""A model folder as the Hugging Face hub expects it: a card with metadata, ``model_index.json``, and the way there."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qartsr.errors import QartsrError
from qartsr.files import home_for_the_hub, read_object, write_json, write_text

INDEX, CARD = "model_index.json", "README.md"
_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?")
_CARD = """---
library_name: qartsr
pipeline_tag: image-to-image
tags: [super-resolution, diffusion, one-step{tag}]
---

# One-step diffusion super-resolution, x4{title}

```python
from qartsr import OneStepSRPipeline

pipe = OneStepSRPipeline.from_pretrained("hf://{name}")
pipe("photo.jpg").save("photo_x4.png")
```

The licence is that of the weights it was made of. A diffusion model invents detail: do not use its output as evidence.
"""


def describe(folder: Path, name: str = "USER/NAME") -> None:
    """Add what the hub reads to a folder that ``save_pretrained`` wrote; a card that is there stays."""
    told = read_object(folder / "summary.json") if (folder / "summary.json").is_file() else {}
    bits = str(told.get("bits", ""))
    facts = {key: told[key] for key in ("bits", "method", "sha256") if key in told}
    write_json(folder / INDEX, {"_class_name": "OneStepSRPipeline", "_qartsr_version": version("qartsr"), **facts})
    if not (folder / CARD).is_file():
        words = {"tag": f", quantization, {bits}" if bits else "", "title": f", {bits.upper()}" if bits else ""}
        write_text(folder / CARD, _CARD.format(name=name, **words))


def demand_name(name: str) -> tuple[str, str | None]:
    """``USER/NAME`` or ``USER/NAME@REVISION`` -> repository and revision. Raises QartsrError."""
    if not _NAME.fullmatch(name):
        raise QartsrError("is no repository of the hub", name, "write USER/NAME, or USER/NAME@REVISION")
    repository, _, revision = name.partition("@")
    return repository, revision or None


def push(pipe: Any, name: str, private: bool | None, token: str | None, message: str) -> str:
    """Upload what ``pipe`` was loaded from; the address of the commit. Raises QartsrError when the hub refuses."""
    home_for_the_hub()
    from huggingface_hub import HfApi

    repository, revision = demand_name(name)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        pipe.save_pretrained(folder)
        describe(folder, repository)
        try:
            api = HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            sent = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, revision=revision)
        except Exception as error:  # the client has many names for "no network" and "not allowed"
            raise _refused(error, name) from error
    return str(sent.commit_url)


def pull(address: str) -> Path:
    """``hf://USER/NAME[@REVISION]`` -> the folder in the hub's own cache. Raises QartsrError."""
    home_for_the_hub()
    from huggingface_hub import snapshot_download

    repository, revision = demand_name(address.removeprefix("hf://"))
    try:
        patterns = ["*.safetensors", "*.json", CARD]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise _refused(error, address) from error


def _refused(error: Exception, where: str) -> QartsrError:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    do = "check its name, the network and your token (HF_TOKEN, or `hf auth login`)"
    return QartsrError(f"the hub refuses or is out of reach ({reason.rstrip('.')})", where, do)
