"""Compiled graphs in the user's cache: the second start of a model is quick.

A file is named by everything it depends on: the model's values, part, size, mode and settings, OpenVINO, the CPU, and
the code that writes graphs. An unusable or unwritable cache costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qartsr.errors import QartsrError
from qartsr.files import cache_folder, sha256_tree, write_bytes

LIMIT = 8 << 30
"""Bytes the cache may have; the files used longest ago go first."""
_CODE = ("export", "runtime")


class Cache:
    """Compiled graphs by key, for one OpenVINO core."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._folder = cache_folder() / "openvino"
        rooms = Path(__file__).parent.parent
        code = [sha256_tree(rooms / room) for room in _CODE]
        self._where = (core.get_versions("CPU")["CPU"].build_number, core.get_property("CPU", "FULL_DEVICE_NAME"), code)

    def get(self, key: tuple[Any, ...], settings: Mapping[str, Any], build: Callable[[], Any]) -> Any:
        """The compiled graph of this key; ``build`` makes one where there is none."""
        path = self._folder / f"{hashlib.sha256(repr((key, self._where)).encode()).hexdigest()}.blob"
        with suppress(OSError, RuntimeError):  # none yet, or one that this OpenVINO does not take
            compiled = self._core.import_model(io.BytesIO(path.read_bytes()), "CPU", dict(settings))
            path.touch()
            return compiled
        compiled = build()
        with suppress(OSError, QartsrError):
            write_bytes(path, compiled.export_model().getvalue())
            self._trim()
        return compiled

    def _trim(self) -> None:
        files = sorted(self._folder.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > LIMIT:
                path.unlink()
