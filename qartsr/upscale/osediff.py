"""OSEDiff on its own base: exactly 4 times as large in memory-bounded tiles, or what the published script makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.images import SCALE, Picture, Some, as_image
from qartsr.images.metadata import kept
from qartsr.models import OneStepSR
from qartsr.models.sd_unet.osediff import load_osediff
from qartsr.models.sd_unet.pretrained import MIRROR
from qartsr.upscale.device import choose_device
from qartsr.upscale.enlarge import visible
from qartsr.upscale.official import Tiling, restore_image
from qartsr.upscale.official.image import enlarged
from qartsr.upscale.tiling import OVERLAP, TILE, Report, silent, upscale_image, usable
from qartsr.upscale.unfinished import Resume

if TYPE_CHECKING:
    from qartsr.upscale.clip import ClipReport, ClipResult


@dataclass(frozen=True, kw_only=True)
class OSEDiffOptions:
    """Everything the command line may say. None is the mode's own default."""

    lora: Path
    """OSEDiff's checkpoint"""
    base: str = MIRROR
    """folder in diffusers layout, or hub id"""
    prompt: str = ""
    """given to the tokenizer as it is"""
    align: Literal["none", "adain", "wavelet"] = "adain"
    official: bool = False
    """the published script's sizes, tiles, rounding and colour fix, fact for fact"""
    posterior: Literal["sample", "mode"] | None = None
    """of the VAE encoder; the script samples, we take the mode"""
    seed: int = 0
    """of the sample, set anew for every image"""
    process_size: int | None = None
    """images that would be smaller than this after x4 are enlarged for the network (the script: 512; ours: never)"""
    latent_tile: int | None = None
    """in latent pixels, as the overlap. The script: tiles of the UNet (96, 32); ours: of the whole network (64, 8)"""
    latent_overlap: int | None = None
    vae_encoder_tile: int | None = None
    """image pixels. The script: 1024; ours: a tile of the whole network is no larger"""
    vae_decoder_tile: int | None = None
    """latent pixels. The script: 224; ours: a tile of the whole network is no larger"""
    merge: bool = True
    """fold the LoRA into the weights"""
    device: str = "auto"


class OSEDiffPipeline:
    """``pipe(image)`` -> the upscaled image. Without ``official`` of the image's own mode and exactly 4 times its size.

    Raises QartsrError for tiles that cannot work, at once.
    """

    def __init__(self, model: OneStepSR, options: OSEDiffOptions) -> None:
        if not 0 <= options.seed < 2**63:
            raise QartsrError(f"{options.seed} is out of range", "seed", "choose a seed from 0 to 2^63 - 1")
        self.model, self._options = model, options
        sampled = "sample" if options.posterior is None and options.official else options.posterior
        self._seed = options.seed if sampled == "sample" else None
        self._tiling = _script_tiling(options)
        self._tile, self._overlap = (TILE, OVERLAP) if options.official else _whole_tiling(options, model)

    @classmethod
    def load(cls, options: OSEDiffOptions) -> OSEDiffPipeline:
        """Read base and LoRA, and put the model on its device."""
        device = choose_device(options.device)
        model = load_osediff(options.base, options.lora, options.align, options.prompt, merge=options.merge)
        return cls(model.to(device), options)

    def __call__(self, image: Some, report: Report = silent) -> Picture:
        """Upscale one image; ``report`` is called after each tile, with ``official`` once.

        As :meth:`qartsr.upscale.pipeline.OneStepSRPipeline.__call__`; with ``official`` the result is 8-bit RGB.
        """
        return self._upscaled(image, report, None)

    def resume(self, picture: Picture, folder: Path, report: Report = silent) -> Picture:
        """As :meth:`qartsr.upscale.pipeline.OneStepSRPipeline.resume`; with ``official`` nothing is kept."""
        return self._upscaled(picture, report, Resume(folder, self._identity))

    def _upscaled(self, image: Some, report: Report, unfinished: Resume | None) -> Picture:
        picture, size = as_image(image), self._options.process_size
        if self._options.official:
            seen = visible(picture)
            result = restore_image(self.model, seen, 512 if size is None else size, self._tiling, self._seed)
            report(1, 1)
            return Picture.of(result, kept(picture.info, result.size))
        larger = enlarged(picture, size or 0)
        given = picture if larger is picture else Picture.of(larger, picture.info)
        made = upscale_image(self.model, given, self._tile, self._overlap, report, self._seed, unfinished=unfinished)
        wanted = picture.width * SCALE, picture.height * SCALE
        if made.size == wanted:
            return made
        return Picture.of(made.resize(wanted, Image.Resampling.BICUBIC), kept(picture.info, wanted))

    def upscale_clip(
        self, source: str | Path, target: str | Path, *, report: ClipReport | None = None, **options: Any
    ) -> ClipResult:
        """As :meth:`qartsr.upscale.pipeline.OneStepSRPipeline.upscale_clip`. Raises QartsrError with ``official``."""
        from qartsr.upscale.clip import clip_options, quiet, upscale_clip

        if self._options.official:
            raise QartsrError("--official is for images, whose size it does not keep", str(source), "leave it out")
        made, model = clip_options(**options), self._identity()
        return upscale_clip(lambda frame, _: self(frame), Path(source), Path(target), made, model, report or quiet)

    def _identity(self) -> dict[str, Any]:
        """What a frame's bytes depend on, beside the frame."""
        said = {name: str(value) for name, value in asdict(self._options).items()}
        file = self._options.lora.stat()
        return {**said, "file": [file.st_size, file.st_mtime_ns], "torch": torch.__version__}


def _script_tiling(options: OSEDiffOptions) -> Tiling:
    given = (options.latent_tile, options.latent_overlap, options.vae_encoder_tile, options.vae_decoder_tile)
    return Tiling(*(default if size is None else size for size, default in zip(given, Tiling(), strict=True)))


def _whole_tiling(options: OSEDiffOptions, model: OneStepSR) -> tuple[int, int]:
    """(tile, overlap) in output pixels: no part of the network sees more than its own limit."""
    limits = [
        options.vae_encoder_tile,
        *(side * model.facts.factor for side in (options.latent_tile, options.vae_decoder_tile) if side is not None),
    ]
    tile = min((side for side in limits if side is not None), default=TILE)
    overlap = min(OVERLAP, tile // 4) if options.latent_overlap is None else options.latent_overlap * model.facts.factor
    return usable(tile, overlap, model.facts.multiple)
