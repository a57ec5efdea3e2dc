"""``qartsr completion SHELL``: the script with which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from qartsr.cli.command import Command

_PATHS = ("paths", "input", "output", "source", "file", "folder", "model", "lora", "base", "pred", "ref", "csv", "json")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def _run(args: argparse.Namespace) -> None:
    import shtab  # type: ignore[import-untyped,unused-ignore]

    from qartsr.cli.dispatch import parser

    whole = parser()
    for action in _actions(whole):
        if action.dest in _PATHS and action.nargs != 0:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(whole, shell=args.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


COMPLETION = Command("completion", "print the script that completes qartsr in a shell", _arguments, _run)
