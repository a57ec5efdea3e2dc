"""What every stage shares: its arguments, its one-sentence errors, its tracked run."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qartsr.allocator import prefer_large_pages
from qartsr.errors import QartsrError, speak_anyhow
from qartsr.tracking import note_time


def arguments(doc: str | None, *names: str, bits: bool = False, method: bool = False) -> argparse.Namespace:
    """Parse paths named like ``--out``; ``--params`` is always there, ``--bits`` where the stage runs per bit-width.

    ``--method``: where it runs per method of the experiments.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameters (default: params.yaml)")
    for name in names:
        parser.add_argument(name, type=Path, required=True)
    if bits:
        parser.add_argument("--bits", required=True, help="bit-width, for example w4a4")
    if method:
        parser.add_argument("--method", required=True, help="row of experiments/params.yaml")
    return parser.parse_args()


def stage(main: Callable[[], None]) -> None:
    """Run ``main``; an error that concerns the user becomes one line and exit status 1.

    SIGTERM, which a cancelled flow sends, unwinds like an interrupt, so that the tracked run is marked as killed.
    """
    began = time.monotonic()
    speak_anyhow()
    prefer_large_pages()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
        note_time(time.monotonic() - began)
    except QartsrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a full disk, a missing permission
        print(
            f"error: {error.filename or 'a file'}: {error.strerror or error}; free or choose a place", file=sys.stderr
        )
        sys.exit(1)
