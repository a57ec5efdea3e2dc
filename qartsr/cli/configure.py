"""``qartsr configure PROFILE``: configs/PROFILE.yaml becomes params.yaml of the project one stands in.

``--method ROW``: with a row of experiments/params.yaml as its method.
"""

from __future__ import annotations

import argparse
import re
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import Command
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.config import Params

CONFIGS, PARAMS = Path("configs"), Path("params.yaml")
ROWS = Path("experiments") / "params.yaml"

_METHOD = re.compile(r"^method:.*?(?=^\w)", re.MULTILINE | re.DOTALL)
"""A profile's block."""


def shipped(path: Path) -> Path:
    """``path`` of the project one stands in or, where that has none, of the installation."""
    installed = Path(sysconfig.get_path("data"), "share", "qartsr", path)
    return path if path.exists() or not installed.exists() else installed


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "profile", metavar="PROFILE", help=f"a file of {CONFIGS}: sample, video, dit, osediff, dloral, tsdsr"
    )
    parser.add_argument("--method", metavar="ROW", help=f"a row of {ROWS}, for example passionsr (default: qartsr)")
    parser.add_argument("--force", action="store_true", help=f"also when {PARAMS} holds changes of your own")


def _run(args: argparse.Namespace) -> None:
    import yaml

    from qartsr.config import load_params, parse_params
    from qartsr.files import write_text

    profiles = {path.stem: path for path in sorted(shipped(CONFIGS).glob("*.yaml"))}
    if not profiles:
        raise QartsrError("has no configurations", str(CONFIGS), "run this in the folder of the project")
    if args.profile not in profiles:
        known = ", ".join(profiles)
        raise QartsrError(f"unknown profile {args.profile!r}", str(CONFIGS), f"choose from {known}")
    chosen = profiles[args.profile]
    params, text = load_params(chosen), chosen.read_text(encoding="utf-8")
    if args.method:
        text = with_method(text, args.method)
        params = parse_params(yaml.safe_load(text), f"{chosen} with {args.method}")
    if not args.force:
        _demand_unchanged(list(profiles.values()))
    write_text(PARAMS, text)
    print(f"{PARAMS} is {chosen}{f' with the method {args.method}' if args.method else ''} now; {_next(params)}.")


def with_method(text: str, name: str) -> str:
    """A profile's text with the row ``name`` of the experiments as its method; all else stays, comments included."""
    blocks = _blocks()
    if name not in blocks:
        raise QartsrError(f"unknown method {name!r}", str(ROWS), f"choose from {', '.join(blocks)}")
    return _METHOD.sub(lambda _: blocks[name], text)


def _blocks() -> dict[str, str]:
    """Each row as it stands in a profile."""
    import yaml

    from qartsr.config import load_config
    from qartsr.config.experiment import Experiments

    found = {}
    for name, method in load_config(Experiments, shipped(ROWS)).methods.items():
        row = method.model_dump(mode="json", exclude_unset=True)
        found[name] = yaml.safe_dump({"method": row}, sort_keys=False, allow_unicode=True, width=110) + "\n"
    return found


def _demand_unchanged(configs: list[Path]) -> None:
    """Only what can be had again is overwritten: a profile, with its own method or a row's."""
    if not PARAMS.is_file():
        return
    text, known = PARAMS.read_bytes(), [config.read_bytes() for config in configs]
    if text in known:
        return
    whole, rows = text.decode(errors="replace"), dict[str, str]()
    with suppress(QartsrError):  # a fault of the experiments is none of the profile's
        rows = _blocks() if shipped(ROWS).is_file() else {}
    method = _METHOD.search(whole)
    rest = [_METHOD.sub("", each.decode()) for each in known]
    if not (method and method[0] in rows.values() and _METHOD.sub("", whole) in rest):
        raise QartsrError(
            f"has changes that are in no file of {CONFIGS}", str(PARAMS), "keep a copy, then say --force to replace it"
        )


def _next(params: Params) -> str:
    missing = [path for path in _inputs(params) if not Path(path).exists()]
    run = "run `dvc repro`, or `make demo` for services and registry as well"
    if not Path("dvc.yaml").is_file():
        run = "the pipeline that reads it comes with a clone of the repository"
    return f"put {', '.join(missing)} in place (`qartsr doctor` says from where), then {run}" if missing else run


def _inputs(params: Params) -> list[str]:
    """Paths of the user's own that a profile names."""
    images, backbone = params.data.images, params.backbone
    folders = [images.train_root, images.test_root] if images.source == "folder" else []
    return list(dict.fromkeys([*backbone.places.values(), *folders]))


CONFIGURE = Command("configure", "switch params.yaml to a shipped profile", _arguments, _run)
