"""``python -m qartsr.services start|status|stop|env [--root .services] [NAME ...]``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import home_for_servers
from qartsr.services import NAMES, start, status, stop


class _Progress:
    """One line, redrawn on a terminal; elsewhere a line per service when it is ready."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def __call__(self, states: Mapping[str, str]) -> None:
        if sys.stderr.isatty():
            line = "   ".join(f"{name} {state}" for name, state in states.items())
            print(f"\r\x1b[Kstarting   {line}", end="", file=sys.stderr, flush=True)
            return
        for name, state in states.items():
            if name not in self._shown and state.startswith("http"):
                print(f"{name} ready at {state}", file=sys.stderr, flush=True)
                self._shown.add(name)


def _start(root: Path, names: tuple[str, ...]) -> None:
    try:
        start(root, names, _Progress())
    finally:
        if sys.stderr.isatty():
            print(end="\r\x1b[K", file=sys.stderr, flush=True)
    _status(root)
    print(f"their environment: set -a; . {shlex.quote(str(root / 'env'))}; set +a")


def _status(root: Path) -> None:
    for name, state in status(root).items():
        print(f"{name:>8}  {state}")


def _stop(root: Path, names: tuple[str, ...]) -> None:
    stopped = stop(root, names)
    print(f"stopped {', '.join(stopped)}; data stays in {root}" if stopped else "nothing was running")


def _env(root: Path) -> None:
    try:
        print((root / "env").read_text(encoding="utf-8"), end="")
    except OSError as error:
        raise QartsrError(
            "the services were never started here", str(root), "run `python -m qartsr.services start`"
        ) from error


def main() -> int:
    """Exit status 1 with one sentence when a service cannot be started."""
    parser = argparse.ArgumentParser("python -m qartsr.services", description="A local S3 store, MLflow and Prefect.")
    parser.add_argument("action", choices=("start", "status", "stop", "env"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--root", type=Path, default=Path(".services"), help="their folder (default: .services)")
    args = parser.parse_args()
    names = tuple(args.names) or NAMES
    try:
        home_for_servers()
        if args.action == "start":
            _start(args.root, names)
        elif args.action == "stop":
            _stop(args.root, names)
        else:
            {"status": _status, "env": _env}[args.action](args.root)
    except QartsrError as error:
        print(f"error: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
