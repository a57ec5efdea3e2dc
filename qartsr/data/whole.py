"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import scratch_beside


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``out``; on success it takes the place of ``out``, on failure it vanishes.

    Raises QartsrError when the disk refuses.
    """
    temporary = scratch_beside(out)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(out, ignore_errors=True)
        temporary.rename(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise QartsrError(
            f"cannot be written ({reason})", str(out), "free some disk space or choose another"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
