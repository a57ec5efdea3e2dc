"""Image in, image out: a model from a package file, a model folder or the registry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, overload

from qartsr.errors import QartsrError
from qartsr.images import (
    READABLE,
    SCALE,
    Picture,
    Some,
    as_image,
    check_target,
    is_image,
    read_image,
    target_name,
    write_image,
)
from qartsr.upscale.arrays import Floats, as_array
from qartsr.upscale.memory import ClipRestorer, LatentMemory
from qartsr.upscale.network import Network, network_of
from qartsr.upscale.opened import open_model
from qartsr.upscale.origin import Memory, Origin, save
from qartsr.upscale.sources import local
from qartsr.upscale.tile_size import tile_for
from qartsr.upscale.tiling import OVERLAP, ROUNDS, Report, silent, upscale_image, usable

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
    ) -> OneStepSRPipeline:
        """Load a package file, a folder holding ``model.safetensors``, a floating-point model folder, or an address.

        Parameters
        ----------
        source: a path; ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` (with ``from qartsr import
            OneStepSRPipeline``) is fetched from the registry that MLFLOW_TRACKING_URI names, its SHA-256 verified.
        device: auto, cpu, cuda or cuda:N.
        engine: auto, or a name of :func:`qartsr.engines.engine_names`. What was chosen and why goes to the logger
            ``qartsr``, level INFO.
        threads: of the CPU; 0: as torch is set, or without it one for each processor.

        A package with graphs runs on OpenVINO without torch, and ``model`` is then a
        :class:`qartsr.runtime.network.GraphNetwork`. Raises QartsrError for what cannot be loaded, and for a device or
        engine that is not available here.
        """
        found = open_model(lambda: local(str(source)), device, engine, threads)
        _LOG.info("engine %s on %s: %s", found.engine, found.device, found.reason)
        pipe = cls(found.model, tile, overlap, rounds)
        pipe.engine, pipe.reason, pipe._origin = found.engine, found.reason, found.origin
        return pipe

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str as well
        self, image: Some, report: Report = silent, output_type: Literal["pil"] = "pil"
    ) -> Picture: ...

    @overload
    def __call__(
        self, image: Sequence[Some], report: Report = silent, output_type: Literal["pil"] = "pil"
    ) -> list[Picture]: ...

    @overload
    def __call__(
        self, image: Some | Sequence[Some], report: Report = silent, *, output_type: Literal["np"]
    ) -> Floats: ...

    @overload
    def __call__(
        self, image: Some | Sequence[Some], report: Report = silent, *, output_type: Literal["pt"]
    ) -> torch.Tensor: ...

    def __call__(
        self, image: Some | Sequence[Some], report: Report = silent, output_type: Literal["pil", "np", "pt"] = "pil"
    ) -> Picture | list[Picture] | Floats | torch.Tensor:
        """Upscale one image, or each of a list or tuple; the result has its image's mode (L, LA, RGB or RGBA).

        An image is Pillow's, an array of uint8 or uint16, or a path, see :func:`qartsr.images.as_image`. The result is
        a Pillow image whose ``save`` writes metadata and 16 bits along, see :class:`qartsr.images.Picture`. ``report``
        is called after each tile with the runs of the network that are done, and their total; what it raises ends the
        call.

        ``output_type``: ``np`` for a float32 array (B, H, W, C) from 0 to 1, ``pt`` for such a tensor (B, C, H, W) on
        the CPU, of images of one size. Raises QartsrError for what is no image, and for another ``output_type``.
        """
        if output_type not in ("pil", "np", "pt"):
            raise QartsrError(f"unknown output_type {output_type!r}", "output_type", "choose pil, np or pt")
        if output_type != "pil":
            batch = as_array(self(image if isinstance(image, list | tuple) else [image], report))  # type: ignore[list-item]
            if output_type == "np":
                return batch
            import torch

            return torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
        if isinstance(image, list | tuple):
            return [self(each, report) for each in image]
        picture = as_image(image)  # type: ignore[arg-type]
        if not isinstance(image, Picture):  # whoever has one has seen what it notes
            for note in picture.notes:
                _LOG.warning("%s: %s", image if isinstance(image, str | Path) else "image", note)
        return self._upscaled(picture, report=report)

    def _upscaled(self, picture: Picture, memory: LatentMemory | None = None, report: Report = silent) -> Picture:
        sides = picture.height * SCALE, picture.width * SCALE
        network, tile = network_of(self.model), self._tile
        if tile is None:
            tile = tile_for(network.load, *sides, self._overlap, self._rounds)
        return upscale_image(network, picture, tile, self._overlap, report, rounds=self._rounds, memory=memory)

    def to(self, device: str | torch.device) -> Self:
        """Move the model to another device (auto, cpu, cuda or cuda:N); returns the pipeline.

        Raises QartsrError for one that is not here, and for engines that compile for where they are loaded.
        """
        import torch

        from qartsr.upscale.device import choose_device

        place = choose_device(str(device))
        if self.engine not in ("none", "simulated", "integer") and str(place) != network_of(self.model).device:
            do = f"load it there: from_pretrained(..., device={str(place)!r})"
            raise QartsrError(f"engine {self.engine} stays where it was loaded", "device", do)
        if isinstance(self.model, torch.nn.Module):
            self.model.to(place)
        return self

    def upscale_folder(self, source: str | Path, target: str | Path, report: Report = silent) -> list[Path]:
        """Upscale every image file in ``source`` to one of the same name and format in ``target``; BMP and GIF to PNG.

        Subfolders and hidden files are left alone; metadata are kept. Returns what was written, by name. Raises
        QartsrError at the first image that cannot be read or written; those before it are written.
        """
        source, target = Path(source), Path(target)
        if not source.is_dir():
            raise QartsrError("is not a folder", str(source), "check the path")
        if source.resolve() == target.resolve():
            raise QartsrError("is both the input and the output", str(source), "name another output")
        files = sorted(file for file in source.iterdir() if is_image(file) and file.is_file() and file.name[0] != ".")
        if not files:
            raise QartsrError(f"has no {READABLE} images", str(source), "check the path")
        if target.exists() and not target.is_dir():
            raise QartsrError("is a file", str(target), "name a folder")
        written = {target / target_name(file.name): file for file in files}
        if len(written) < len(files):
            raise QartsrError("has images that would become one file", str(source), "rename one of them")
        for path, file in written.items():
            image = read_image(file)
            check_target(path, image, 4)
            for note in (*image.notes, *write_image(path, self(image, report))):
                _LOG.warning("%s: %s", file, note)
        return list(written)

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
        return upscale_clip(self._restorer(), Path(source), Path(target), options, model, report or quiet)

    def _restorer(self) -> Restore:
        """Of frames: a model of clips is told the frame before."""
        if network_of(self.model).frames > 1:
            return ClipRestorer(self._upscaled)
        return lambda frame, before: self(frame)

    def digest(self) -> str:
        """Hex SHA-256 of what was loaded; of a package that of its file. Raises QartsrError when a file is gone."""
        return self._origin.digest()

    def _identity(self) -> dict[str, str | int]:
        """What a frame's bytes depend on, beside the frame."""
        names = ("qartsr", "openvino" if self.engine == "openvino" else "torch")
        tiles = {"tile": self._tile or 0, "overlap": self._overlap, "rounds": self._rounds}
        place = {"engine": self.engine, "device": network_of(self.model).device}
        return {"sha256": self._origin.digest(), **place, **tiles, **{name: version(name) for name in names}}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder`` such that ``from_pretrained(folder)`` loads the same model; it appears whole or not at all.

        A package is copied byte for byte, with its ``summary.json`` and ``README.md`` (from the registry, which keeps
        them elsewhere: with a summary without metrics); a floating-point model is its folder. Raises QartsrError when
        ``folder`` holds anything else, and when the files loaded from have changed or gone since.
        """
        save(self._origin, Path(folder))
