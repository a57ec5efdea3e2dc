"""The command line, ``qartsr``: a file per command; what a command needs is loaded when that command runs."""

from qartsr.cli.dispatch import main

__all__ = ["main"]
