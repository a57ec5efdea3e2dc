"""From words to a command, and from whatever goes wrong to one sentence and an exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from qartsr.allocator import collect_rarely, prefer_large_pages
from qartsr.cli.completion import COMPLETION
from qartsr.cli.configure import CONFIGURE
from qartsr.cli.cost import COST
from qartsr.cli.doctor import DOCTOR
from qartsr.cli.evaluate import EVALUATE
from qartsr.cli.export import EXPORT
from qartsr.cli.fetch_metric_weights import FETCH_METRIC_WEIGHTS
from qartsr.cli.init_random import INIT_RANDOM
from qartsr.cli.inspect import INSPECT
from qartsr.cli.promote import PROMOTE, ROLLBACK
from qartsr.cli.serve import SERVE
from qartsr.cli.upscale import UPSCALE
from qartsr.cli.web import WEB
from qartsr.errors import QartsrError, printable, speak_anyhow

COMMANDS = (
    UPSCALE,
    SERVE,
    WEB,
    INSPECT,
    EVALUATE,
    EXPORT,
    PROMOTE,
    ROLLBACK,
    CONFIGURE,
    DOCTOR,
    FETCH_METRIC_WEIGHTS,
    COST,
    INIT_RANDOM,
    COMPLETION,
)
_EXTRAS = {
    **dict.fromkeys(("diffusers", "safetensors", "torch", "tqdm"), "torch"),
    "av": "video",
    "boto3": "registry",
    "botocore": "registry",
    "gradio": "web",
    "mlflow": "serve",
    "onnx": "openvino",
    "openvino": "openvino",
    "pandas": "serve",
    "prometheus_client": "server",
    "shtab": "completion",
    "starlette": "server",
    "uvicorn": "server",
}
"""By package, the extra that brings it, where it is not [train]."""
INTERRUPTED, READER_GONE = 130, 141
"""What a shell reports of a program that SIGINT or SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``qartsr``; ``argv`` without the program's name.

    Exit status: 0 done, 1 a fault told in one sentence on stderr (of several images: how many failed), 2 wrong usage
    (raised as SystemExit by argparse), 130 interrupted, 141 whoever read the output has gone.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that are not used here
    speak_anyhow()
    collect_rarely()
    prefer_large_pages()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third parties warn of each other, in pages a user cannot act on
            _run(argv)
    except QartsrError as error:
        return _failed(error)
    except ModuleNotFoundError as error:
        if (error.name or "qartsr").split(".")[0] == "qartsr":
            raise
        return _failed(_not_installed(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return READER_GONE
    except OSError as error:
        return _failed(_sentence(error))
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        args = _parsed(argv)
        args.run(args)
    finally:
        _flush()  # here, where a full disk or a closed pipe still finds someone to tell


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Words of a list of paths may stand on both sides of an option, which argparse leaves over."""
    whole = parser()
    args, rest = whole.parse_known_args(argv)
    if rest and not (hasattr(args, "paths") and all(word == "-" or not word.startswith("-") for word in rest)):
        whole.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.paths = [*args.paths, *rest]
    return args


class _Parser(argparse.ArgumentParser):
    """Refuses words, which may be names of files, in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """Of all commands."""
    whole = _Parser(
        "qartsr", description="Low-bit quantized one-step super-resolution: use, look into, measure and ship a model."
    )
    whole.add_argument("--version", action="version", version=f"qartsr {importlib.metadata.version('qartsr')}")
    verbs = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        verb = verbs.add_parser(command.name, help=command.summary, description=f"{command.summary.capitalize()}.")
        command.arguments(verb)
        verb.set_defaults(run=command.run, refuse=verb.error)
    return whole


def _sentence(error: OSError) -> QartsrError:
    where = "standard output" if error.filename is None else str(error.filename)
    return QartsrError(error.strerror or str(error), where, "check the path, its permissions and the free space")


def _not_installed(error: ModuleNotFoundError) -> QartsrError:
    extra = _EXTRAS.get((error.name or "").split(".")[0], "train")
    do = f"install the extra [{extra}], or [all] for the whole pipeline (`pip install 'qartsr[{extra}]'`)"
    return QartsrError("is needed for this command and not installed", f"the package {error.name}", do)


def _failed(error: QartsrError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return int(getattr(error, "status", 1))


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # lead it nowhere, or the interpreter fails once more over what is left in the buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
