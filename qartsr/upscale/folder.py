"""Every image of a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from qartsr.errors import QartsrError, printable
from qartsr.images import READABLE, Picture, check_target, is_image, read_image, target_name, write_image

_LOG = logging.getLogger("qartsr")


def upscale_folder(enlarge: Callable[[Picture], Picture], source: Path, target: Path) -> list[Path]:
    """See :meth:`qartsr.upscale.pipeline.OneStepSRPipeline.upscale_folder`."""
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
        for note in (*image.notes, *write_image(path, enlarge(image))):
            _LOG.warning("%s", printable(f"{file}: {note}"))
    return list(written)
