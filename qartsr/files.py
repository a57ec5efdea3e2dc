"""Write-then-rename, and content hashes. No torch here."""

from __future__ import annotations

import errno
import getpass
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from qartsr.errors import QartsrError

_LEFT_OVER = 3600.0
"""Age in seconds of a scratch file that nobody writes any more, on this machine or another."""


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of one file's bytes. Raises QartsrError when it cannot be read."""
    digest = hashlib.sha256()
    with reading(path), path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's relative names and contents (names sorted)."""
    with reading(path):
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


def reason(error: Exception) -> str:
    """What the system says of a file, in a few words."""
    return str(getattr(error, "strerror", None) or error)


def advice(error: Exception) -> str:
    """What to do about a file that cannot be written."""
    if isinstance(error, ValueError):
        return "choose another name"
    known = {
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EACCES: "mend the permissions of the folder or choose another",
        errno.EPERM: "mend the permissions of the folder or choose another",
        errno.EROFS: "choose another folder",
    }
    return known.get(getattr(error, "errno", 0) or 0, "free some disk space or choose another folder")


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


def home_for_the_hub() -> None:
    """Where no home can be found, the client of Hugging Face, which asks for one, keeps its files in our cache.

    To be called before it is imported; what HF_HOME says stays.
    """
    try:
        Path.home()
    except (RuntimeError, KeyError):
        os.environ.setdefault("HF_HOME", str(cache_folder() / "huggingface"))


def home_for_servers() -> None:
    """Where a user id has no home or no name, as in many containers, Prefect and DVC, which ask for both, get them.

    For this process and those that it starts; to be called before Prefect is imported. A home that is there stays, as
    it may hold credentials. Raises QartsrError where there is no place for one.
    """
    homeless = True
    with suppress(RuntimeError, KeyError):
        home = Path.home()
        homeless = not home.is_dir() or (home == Path("/") and not os.access(home, os.W_OK))
    own = os.getuid() if hasattr(os, "getuid") else 0
    if homeless:
        home = cache_folder().absolute()
        with writing(home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = home.lstat()
        if home.is_symlink() or (hasattr(os, "getuid") and there.st_uid != own):
            do = "set HOME to a folder of your own"  # programs run what a home's settings say
            raise QartsrError("is another user's, and no home for this one", str(home), do)
        os.environ["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"user{own}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path`` in one rename.

    A crash or an exception leaves the old file (or none), never half a file. What cannot be written, by safetensors
    either, is a QartsrError.
    """
    temporary = scratch_beside(path)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sweep(path)
        finally:
            with suppress(OSError, ValueError):
                temporary.unlink()


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: an empty one, which takes the place of ``path`` and all that is in it."""
    temporary = scratch_beside(path)
    with writing(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
            sweep(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the system or safetensors says against writing ``path`` is a QartsrError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        cause = _system(error)
        raise QartsrError(f"cannot be written ({reason(cause)})", str(path), advice(cause)) from error
    except ValueError as error:
        if "\0" not in str(path):
            raise
        raise QartsrError("cannot be written (a NUL in its name)", repr(str(path)), advice(error)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever the system says against reading ``path`` is a QartsrError."""
    try:
        yield
    except OSError as error:
        raise QartsrError(f"cannot be read ({reason(error)})", str(path), "check the path") from error
    except ValueError as error:
        if "\0" not in str(path):
            raise
        raise QartsrError("cannot be read (a NUL in its name)", repr(str(path)), "check the path") from error


def _system(error: Exception) -> Exception:
    """The error of the system that safetensors quotes as a text."""
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found and not isinstance(error, OSError) else error


def sweep(path: Path) -> None:
    """Remove what processes that were killed left beside ``path``: of a process that is gone, and an hour old."""
    pattern = f".{sha256_bytes(os.fsencode(path.name))[:16]}.*.*.tmp"
    for left in path.parent.glob(pattern):
        owner = left.name.split(".")[2]
        with suppress(OSError, ValueError):
            if time.time() - left.lstat().st_mtime > _LEFT_OVER and not Path(f"/proc/{int(owner)}").exists():
                shutil.rmtree(left) if left.is_dir() else left.unlink()


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
    except (ValueError, RecursionError) as error:
        raise QartsrError(f"is not JSON ({error})", str(path), "make it again") from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Read JSON that is an object with these keys. Raises QartsrError when it is missing or anything else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise QartsrError("is JSON, but no object", str(path), "make it again")
    for key in keys:
        if key not in found:
            raise QartsrError(f"has no {key!r}", str(path), "make it again")
    return found
