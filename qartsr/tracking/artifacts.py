"""Where a run keeps its files: straight in S3, or behind the server's artifact proxy."""

from __future__ import annotations

import time
import urllib.parse
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qartsr.errors import QartsrError
from qartsr.remote import Mlflow, Store, open_store, split_uri

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_SMALL = 256
"""Longer side in pixels of what MLflow shows first."""


class ArtifactStore:
    """The artifact folder of one run."""

    def __init__(self, server: Mlflow, uri: str) -> None:
        self._server, self._uri = server, uri
        self._stores: list[Store] = []

    def put(self, path: Path, folder: str = "") -> None:
        """Keep a file, or every file of a folder, under ``folder``."""
        send = self._sender()
        for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
            name = file.relative_to(path.parent).as_posix()
            send(file, f"{folder}/{name}" if folder else name)

    def put_row(self, images: Pixels, step: int) -> None:
        """Pictures (B, H, W, 3) side by side, named as MLflow names images of a step, whole and small."""
        import numpy as np
        from PIL import Image

        row = Image.fromarray(np.concatenate(list(images), axis=1))
        name = f"restored+step+{step}+timestamp+{int(time.time() * 1000)}+{uuid.uuid4()}"
        with TemporaryDirectory() as scratch:
            whole, small = Path(scratch) / f"{name}.png", Path(scratch) / f"{name}+compressed.webp"
            row.save(whole)
            row.thumbnail((_SMALL, _SMALL))
            row.save(small)
            for file in (whole, small):
                self.put(file, "images")

    def _sender(self) -> Callable[[Path, str], None]:
        scheme = urllib.parse.urlsplit(self._uri).scheme
        if scheme == "s3":
            bucket, root = split_uri(self._uri)
            store = self._store(bucket)
            return lambda file, name: store.upload(file, bucket, f"{root}/{name}")
        if scheme == "mlflow-artifacts":
            root = urllib.parse.urlsplit(self._uri).path.strip("/")
            return lambda file, name: self._server.put_artifact(f"{root}/{name}", file)
        raise QartsrError(
            "artifacts cannot be sent there", self._uri, "start the server with an s3:// root or with --serve-artifacts"
        )

    def _store(self, bucket: str) -> Store:
        """Opened once; asked every time whether it answers: an upload would try for minutes to find out."""
        if not self._stores:
            self._stores.append(open_store())
        self._stores[0].demand(bucket)
        return self._stores[0]
