"""Image in, image out: a model from a package file, a model folder or the registry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, Unpack, overload

from qartsr.errors import QartsrError, printable
from qartsr.images import (
    SCALE,
    Picture,
    Some,
    as_image,
)
from qartsr.upscale.device import floating
from qartsr.upscale.diffusers_calls import Floats, More, as_array, both, drawn
from qartsr.upscale.memory import ClipRestorer, LatentMemory
from qartsr.upscale.model_source import Memory, Origin, is_package, local, save
from qartsr.upscale.network import Network, network_of
from qartsr.upscale.opened import open_model
from qartsr.upscale.tile_size import tile_for
from qartsr.upscale.tiling import OVERLAP, ROUNDS, Report, silent, upscale_image, usable
from qartsr.upscale.unfinished import Resume

if TYPE_CHECKING:
    import torch

    from qartsr.models import OneStepSR
    from qartsr.upscale.clip import ClipReport, ClipResult, Restore

_LOG = logging.getLogger("qartsr")


class OneStepSRPipeline:
    """``pipe(image)`` -> the image, exactly 4 times as wide and high. For one thread at a time.

    Parameters
    ----------
    model: in evaluation mode, on the device it shall run on, executed as it is.
    tile, overlap, rounds: see :func:`qartsr.upscale.upscale_image`; refused here when they cannot work. ``tile`` None:
        for each image what :mod:`qartsr.upscale.tile_size` chooses, 0: no tiles.

    ``engine`` is the name of what executes the model, ``reason`` why that was chosen.
    """

    def __init__(
        self, model: OneStepSR | Network, tile: int | None = None, overlap: int = OVERLAP, rounds: int = ROUNDS
    ) -> None:
        self.model, self.engine, self.reason = model, "none", "the model runs as it was given"
        if not 0 <= rounds <= ROUNDS:
            raise QartsrError(f"{rounds} rounds cannot be", "rounds", f"choose 0 to {ROUNDS}")
        whole, self._overlap = usable(tile or 0, overlap, network_of(model).multiple)
        self._tile, self._rounds = None if tile is None else whole, rounds
        self._origin: Origin = Memory(model)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        tile: int | None = None,
        overlap: int = OVERLAP,
        rounds: int = ROUNDS,
        threads: int = 0,
        torch_dtype: torch.dtype | None = None,
    ) -> OneStepSRPipeline:
        """Load a package file, a folder holding ``model.safetensors``, a floating-point model folder, or an address.

        Parameters
        ----------
        source: a path; ``hf://USER/NAME``; ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` (``from qartsr import
            OneStepSRPipeline``) is fetched from the registry that MLFLOW_TRACKING_URI names, its SHA-256 verified.
        device: auto, cpu, cuda or cuda:N.
        engine: auto, or a name of :func:`qartsr.engines.engine_names`. What was chosen and why goes to the logger
            ``qartsr``, level INFO.
        threads: of the CPU; 0: as torch is set, or without it one for each processor.
        torch_dtype: in which a floating-point model computes, such as torch.bfloat16 (default: float32).

        A package with graphs runs on OpenVINO without torch, and ``model`` is then a
        :class:`qartsr.runtime.network.GraphNetwork`. Raises QartsrError for what cannot be loaded, and for a device or
        engine that is not available here.
        """
        found = open_model(lambda: local(str(source)), device, engine, threads)
        _LOG.info("engine %s on %s: %s", found.engine, found.device, found.reason)
        pipe = cls(found.model, tile, overlap, rounds)
        pipe.engine, pipe.reason, pipe._origin = found.engine, found.reason, found.origin
        return pipe if torch_dtype is None else pipe.to(torch_dtype)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str as well
        self, image: Some, report: Report = silent, output_type: Literal["pil"] = "pil", **more: Unpack[More]
    ) -> Picture: ...

    @overload
    def __call__(
        self,
        image: Sequence[Some],
        report: Report = silent,
        output_type: Literal["pil"] = "pil",
        **more: Unpack[More],
    ) -> list[Picture]: ...

    @overload
    def __call__(
        self,
        image: Some | Sequence[Some],
        report: Report = silent,
        *,
        output_type: Literal["np"],
        **more: Unpack[More],
    ) -> Floats: ...

    @overload
    def __call__(
        self,
        image: Some | Sequence[Some],
        report: Report = silent,
        *,
        output_type: Literal["pt"],
        **more: Unpack[More],
    ) -> torch.Tensor: ...

    def __call__(
        self,
        image: Some | Sequence[Some],
        report: Report = silent,
        output_type: Literal["pil", "np", "pt"] = "pil",
        *,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable[..., object] | None = None,
    ) -> Picture | list[Picture] | Floats | torch.Tensor:
        """Upscale one image, or each of a list or tuple; the result has its image's mode (L, LA, RGB or RGBA).

        An image is Pillow's, an array of uint8 or uint16, or a path, see :func:`qartsr.images.as_image`. The result is
        a Pillow image whose ``save`` writes metadata and 16 bits along, see :class:`qartsr.images.Picture`.

        Parameters
        ----------
        report: called after each tile with the runs of the network that are done, and their total; what it raises ends
            the call.
        output_type: ``np`` for a float32 array (B, H, W, C) from 0 to 1, ``pt`` for such a tensor (B, C, H, W) on the
            CPU, of images of one size.
        generator: the encoder's posterior is sampled with it; without one its mode is used, which depends on nothing.
        callback_on_step_end: diffusers' name for a ``report``, called with the pipeline, the run, the timestep and {}.

        Raises QartsrError for what is no image, for another ``output_type``, and for a generator where no torch is.
        """
        if output_type not in ("pil", "np", "pt"):
            raise QartsrError(f"unknown output_type {output_type!r}", "output_type", "choose pil, np or pt")
        if callback_on_step_end is not None:
            report = both(self, report, callback_on_step_end)
        if output_type == "pil":
            if isinstance(image, list | tuple):
                return [self._one(each, report, generator) for each in image]
            return self._one(image, report, generator)  # type: ignore[arg-type]
        images = image if isinstance(image, list | tuple) else [image]
        batch = as_array([self._one(each, report, generator) for each in images])  # type: ignore[arg-type]
        if output_type == "np":
            return batch
        import torch

        return torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())

    def _one(self, image: Some, report: Report, generator: torch.Generator | None) -> Picture:
        picture = as_image(image)
        if not isinstance(image, Picture):  # whoever has one has seen what it notes
            for note in picture.notes:
                name = image if isinstance(image, str | Path) else "image"
                _LOG.warning("%s", printable(f"{name}: {note}"))
        return self._upscaled(picture, None, report, generator)

    def resume(self, picture: Picture, folder: Path, report: Report = silent) -> Picture:
        """As ``pipe(picture)``, which in ``folder`` outlives a kill: see :mod:`qartsr.upscale.unfinished`."""
        return self._upscaled(picture, report=report, unfinished=folder)

    def _upscaled(
        self, picture: Picture, memory: LatentMemory | None = None, report: Report = silent,
        generator: torch.Generator | None = None, unfinished: Path | None = None,
    ) -> Picture:  # fmt: skip
        sides = picture.height * SCALE, picture.width * SCALE
        network, tile = network_of(self.model), self._tile
        if tile is None:
            tile = tile_for(network.load, *sides, self._overlap, self._rounds)
        seed = None if generator is None else drawn(generator)
        resume = None if unfinished is None else Resume(unfinished, self._identity)
        return upscale_image(network, picture, tile, self._overlap, report, seed, self._rounds, memory, resume)

    def to(self, device: str | torch.device | torch.dtype, dtype: torch.dtype | None = None) -> Self:
        """Move the model to a device (auto, cpu, cuda or cuda:N), let it compute in ``dtype``, or both.

        Returns the pipeline. Raises QartsrError for a device that is not here, for engines that compile for where they
        are loaded, and for a ``dtype`` where an engine has its own: packages have.
        """
        import torch

        if isinstance(device, torch.dtype):
            return self._compute_in(device)
        from qartsr.upscale.device import choose_device

        place = choose_device(str(device))
        if self.engine not in ("none", "simulated", "integer") and str(place) != network_of(self.model).device:
            do = f"load it there: from_pretrained(..., device={str(place)!r})"
            raise QartsrError(f"engine {self.engine} stays where it was loaded", "device", do)
        if isinstance(self.model, torch.nn.Module):
            self.model.to(place)
        return self if dtype is None else self._compute_in(dtype)

    def _compute_in(self, dtype: torch.dtype) -> Self:
        name, floats = str(dtype), not is_package(self._origin) and floating(self.model)
        if name not in ("torch.float32", *(("torch.bfloat16", "torch.float16") if floats else ())):
            do = "leave it out; floating-point models take bfloat16 and float16"
            raise QartsrError(f"{name} is not what this model is computed in", "torch_dtype", do)
        if floats and dtype != self.model.dtype:  # type: ignore[union-attr]
            self.model.to(dtype)  # type: ignore[union-attr]
            self._origin = Memory(self.model)  # rounded, also back in float32: no longer what the files hold
        return self

    def upscale_folder(self, source: str | Path, target: str | Path, report: Report = silent) -> list[Path]:
        """Upscale every image file in ``source`` to one of the same name and format in ``target``; BMP and GIF to PNG.

        Subfolders and hidden files are left alone; metadata are kept. Returns what was written, by name. Raises
        QartsrError at the first image that cannot be read or written; those before it are written.
        """
        from qartsr.upscale.folder import upscale_folder

        return upscale_folder(lambda image: self(image, report), Path(source), Path(target))

    def upscale_clip(
        self,
        source: str | Path,
        target: str | Path,
        *,
        crf: int | None = None,
        fps: float | Fraction | None = None,
        start: float | Fraction | None = None,
        end: float | Fraction | None = None,
        strip: bool = False,
        report: ClipReport | None = None,
    ) -> ClipResult:
        """Upscale a video file, or a folder of frames, to a video file (.mp4, .mov, .mkv) or a folder of PNG frames.

        Interrupted, it goes on where it was when called again, see :mod:`qartsr.upscale.clip`. Needs the extra
        ``video``.

        Parameters
        ----------
        crf: quality of H.264, 0 to 51, less is better (default: 16; .mkv is lossless FFV1 without it).
        fps: frames per second of a folder of frames, or of a file without time stamps.
        start, end: seconds; frames that begin in between are upscaled.
        strip: leave out metadata.
        report: called at the beginning and after each frame.

        Raises QartsrError for what is no clip of 8-bit, progressive frames with times, and for what cannot be written.
        """
        from qartsr.upscale.clip import clip_options, quiet, upscale_clip

        options, model = clip_options(crf, fps, start, end, strip), self._identity()
        told = network_of(self.model).frames > 1  # of the frame before
        restore: Restore = ClipRestorer(self._upscaled) if told else lambda frame, before: self(frame)
        return upscale_clip(restore, Path(source), Path(target), options, model, report or quiet)

    def digest(self) -> str:
        """Hex SHA-256 of what was loaded; of a package that of its file. Raises QartsrError when a file is gone."""
        return self._origin.digest()

    def _identity(self) -> dict[str, str | int]:
        """What a frame's bytes depend on, beside the frame."""
        names = ("qartsr", "openvino" if self.engine == "openvino" else "torch")
        tiles = {"tile": self._tile or 0, "overlap": self._overlap, "rounds": self._rounds}
        network = network_of(self.model)
        place = {"engine": self.engine, "device": network.device, "dtype": str(getattr(self.model, "dtype", ""))}
        return {"sha256": self._origin.digest(), **place, **tiles, **{name: version(name) for name in names}}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder`` such that ``from_pretrained(folder)`` loads the same model; it appears whole or not at all.

        A package is copied byte for byte, with its ``summary.json`` and ``README.md`` (from the registry, which keeps
        them elsewhere: with a summary without metrics); a floating-point model is its folder. Raises QartsrError when
        ``folder`` holds anything else, and when the files loaded from have changed or gone since.
        """
        save(self._origin, Path(folder))

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, commit_message: str = "Add model"
    ) -> str:
        """Upload what ``save_pretrained`` writes, a model card and ``model_index.json``; the commit's address.

        ``from_pretrained("hf://USER/NAME")`` loads it. Raises QartsrError when the hub refuses.
        """
        from qartsr.upscale.hub import push

        return push(self, repo_id, private, token, commit_message)
