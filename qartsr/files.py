"""Write-then-rename, and content hashes. No torch here."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qartsr.errors import QartsrError


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of one file's bytes. Raises QartsrError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise QartsrError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's relative names and contents (names sorted)."""
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise QartsrError("does not exist", str(path), "run the stage that makes it, or check the path")
    lines = [f"{p.relative_to(path).as_posix()} {sha256_file(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
    return sha256_bytes("\n".join(lines).encode())


def scratch_beside(path: Path) -> Path:
    """A hidden name of this thread's own beside ``path``, short however long that is: names end at 255 bytes."""
    word = sha256_bytes(os.fsencode(path.name))[:16]
    return path.with_name(f".{word}.{os.getpid()}.{threading.get_ident()}.tmp")


def advice(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    known = {
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EACCES: "mend the permissions of the folder or choose another",
        errno.EPERM: "mend the permissions of the folder or choose another",
        errno.EROFS: "choose another folder",
    }
    return known.get(error.errno or 0, "free some disk space or choose another folder")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/qartsr``, ``~/.cache/qartsr``, or a folder of the user's among temporary files, without a home.

    A home that cannot be written to, as in many containers (``HOME=/``), is none.
    """
    if told := os.environ.get("XDG_CACHE_HOME", "").strip():
        return Path(told) / "qartsr"
    with suppress(RuntimeError, OSError):  # no HOME, and a user id without a name
        cache = Path.home() / ".cache"
        if os.access(next(place for place in (cache, *cache.parents) if place.exists()), os.W_OK):
            return cache / "qartsr"
    return Path(tempfile.gettempdir()) / f"qartsr-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path`` in one rename.

    A crash or an exception leaves the old file (or none), never half a file.
    """
    temporary = scratch_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise QartsrError(f"cannot be written ({error.strerror or error})", str(path), advice(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) atomically; what no text can hold of a file's name is escaped as JSON does it."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as sorted, indented JSON, atomically; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises QartsrError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QartsrError(
            f"cannot be read ({error.strerror})", str(path), "run the stage that makes it, or check the path"
        ) from error
    except ValueError as error:
        raise QartsrError(f"is not JSON ({error})", str(path), "make it again") from error
