"""params.yaml: what is shipped loads, what is wrong is said in one sentence."""

from __future__ import annotations

import copy
import functools
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from qartsr.config import Bits, Params, load_params, lr_scale, parse_bits, parse_params
from qartsr.config.experiment import Experiments
from qartsr.config.method import Training
from qartsr.config.recipe import RecipeConfig
from qartsr.errors import QartsrError


@pytest.fixture()
def values(root: Path) -> Any:
    return yaml.safe_load((root / "configs" / "sample.yaml").read_text())


def test_every_shipped_config_loads(root: Path) -> None:
    shipped = sorted((root / "configs").glob("*.yaml"))
    assert {load_params(path).profile for path in shipped} == {"sample", "osediff", "dit", "dloral", "tsdsr", "video"}
    load_params(root / "params.yaml")


def test_unknown_key_names_the_closest(values: Any) -> None:
    values["method"]["phases"][0]["train_quantised"] = True
    with pytest.raises(QartsrError, match=r"phases\.0\..*train_quantised.*did you mean 'train_quantized'\?$"):
        parse_params(values, "params.yaml")


def test_a_bit_width_needs_its_entry(values: Any) -> None:
    values["bits"] = ["w5a6"]
    with pytest.raises(QartsrError, match="precision"):
        parse_params(values, "params.yaml")
    values["precision"]["w5a6"] = {"lr_scale": 2.0}
    params = parse_params(values, "params.yaml")
    assert params.bits == ("w5a6",) and lr_scale(params.precision, "w5a6") == 2.0
    with pytest.raises(QartsrError, match="no entry w5a5 under precision"):
        lr_scale(params.precision, "w5a5")


def test_retraining_needs_a_loss(values: Any) -> None:
    values["retrain"]["loss"] = {"lpips": 0.0, "mse": 0.0, "l1": 0.0}
    with pytest.raises(QartsrError, match="there is nothing to train by"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("name", ["w1a4", "w9a9", "w4", "4", "w4a4x", ""])
def test_unknown_bit_width(name: str, values: Any) -> None:
    with pytest.raises(QartsrError, match="unknown bit-width"):
        parse_bits(name)
    values["bits"] = [name]
    with pytest.raises(QartsrError, match="unknown bit-width"):
        parse_params(values, "params.yaml")


def test_bits_round_trip() -> None:
    assert parse_bits("w3a8") == Bits(3, 8)
    assert str(Bits(3, 8)) == "w3a8"


def test_a_step_fits_its_backbone(root: Path, values: Any) -> None:
    """1000 is the beginning of a flow; Stable Diffusion's prior and VSD teach no transformer."""
    values["probe"]["timesteps"] = [1000, 1]
    with pytest.raises(QartsrError, match="a sample has timesteps 0 to 999"):
        parse_params(values, "params.yaml")
    flow = yaml.safe_load((root / "configs" / "tsdsr.yaml").read_text())
    for said, change in (("vsd", {"vsd": {"weight": 1.0}}), ("start: base", {"start": "base"})):
        with pytest.raises(QartsrError, match=f"{said} is of Stable Diffusion's UNets; for a tsdsr leave it out"):
            parse_params({**flow, "retrain": {**flow["retrain"], "base": "x", **change}}, "params.yaml")


def test_moving_clips_are_bicubic(root: Path) -> None:
    for key in ("data", "retrain"):
        found = yaml.safe_load((root / "configs" / "video.yaml").read_text())
        found[key]["degradation"] = {"kind": "realesrgan"}
        with pytest.raises(QartsrError, match=f"{key}.degradation: moving clips"):
            parse_params(found, "params.yaml")


def test_a_model_of_clips_starts_from_its_own_weights(root: Path) -> None:
    found = yaml.safe_load((root / "configs" / "video.yaml").read_text())
    assert (root / parse_params(found, "params.yaml").backbone.places["weights"] / "qartsr.json").is_file()
    found["retrain"] |= {"start": "base", "base": "x"}
    with pytest.raises(QartsrError, match="sees no frame before"):
        parse_params(found, "params.yaml")


def test_relatives_of_osediff_are_backbones(root: Path) -> None:
    paper = yaml.safe_load((root / "configs" / "osediff.yaml").read_text())
    for kind, align in (("omgsr", "adain"), ("hypir", "wavelet")):
        found = parse_params({**paper, "backbone": {"kind": kind, "base": "b", "lora": "l"}}, "params.yaml").backbone
        assert (found.kind, found.align, found.places) == (kind, align, {"base": "b", "lora": "l"})


def test_an_image_may_not_train_and_test(values: Any) -> None:
    values["data"]["images"]["test"].append("china")
    with pytest.raises(QartsrError, match="china stand in train and test"):
        parse_params(values, "params.yaml")


def test_a_step_has_equal_parts(values: Any) -> None:
    values["compute"] |= {"processes": 2, "micro_batch": 3}
    with pytest.raises(QartsrError, match=r"retrain\.batch 8 is no multiple of compute\.processes 2 x .* 3"):
        parse_params(values, "params.yaml")
    values["compute"]["micro_batch"] = 4
    assert parse_params(values, "params.yaml").compute.processes == 2


@pytest.mark.parametrize("change", [{"start": "base"}, {"vsd": {"weight": 1.0}}])
def test_stable_diffusion_is_asked_for_where_it_is_needed(values: Any, change: dict[str, Any]) -> None:
    values["retrain"] |= change
    with pytest.raises(QartsrError, match="base must name the folder"):
        parse_params(values, "params.yaml")
    values["retrain"]["base"] = "weights/stable-diffusion-2-1-base"
    parse_params(values, "params.yaml")


def test_timesteps_of_vsd_are_in_order(values: Any) -> None:
    values["retrain"]["vsd"] = {"first": 500, "last": 499}
    with pytest.raises(QartsrError, match="first 500 lies behind last 499"):
        parse_params(values, "params.yaml")


def test_a_fault_is_told_in_the_words_of_the_file(values: Any) -> None:
    """Not in Python's, and without all the values around it."""
    wrong = {"bits": ("w4a4", "bits: must be a list, such as [a, b] (got 'w4a4')"), "seed": (None, "seed: is missing")}
    wrong |= {"lpips": (7, "lpips: must hold keys and values (got 7)"), "profile": (5, "profile: must be text (got 5)")}
    for key, (value, sentence) in wrong.items():
        changed = {**values, key: value} if value is not None else {k: v for k, v in values.items() if k != key}
        with pytest.raises(QartsrError, match=re.escape(sentence)) as caught:
            parse_params(changed, "x")
        assert len(str(caught.value)) < 100


def test_frozen(values: Any) -> None:
    params = parse_params(values, "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3  # type: ignore[misc]


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="cannot be read"):
        load_params(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(QartsrError, match="is not YAML"):
        load_params(broken)


@pytest.mark.parametrize(
    ("key", "value"),
    [("profile", each) for each in ("o'brien", "team/exp1", "exp#1", "my run", "Sample", "a\n", "", "a" * 65)]
    + [
        ("bucket", each)
        for each in ("s3://qartsr/x", "qartsr/models", "Qartsr", "a", "a..b", "a-.b", "10.0.0.1", "x" * 64)
    ],
)
def test_names_are_matched_whole(key: str, value: str, values: Any) -> None:
    """The registry and the store would refuse them at the last stage, hours later."""
    (values if key == "profile" else values["publish"])[key] = value
    with pytest.raises(QartsrError, match=key):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("key", ["seed", "lpips", "publish"])
def test_what_dvc_demands_has_no_default(key: str, values: Any) -> None:
    """Else a file would be valid here, and DVC would refuse it in words of its own."""
    del values[key]
    with pytest.raises(QartsrError, match=key):
        parse_params(values, "params.yaml")


BOMB = "seed: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        "seed: " + "9" * 5000,
        "seed: 2024-99-99",
        'seed: !!int "abc"',
        'seed: !!float "abc"',
        'seed: !!bool "abc"',
        "seed: " + "[" * 3000,
        "seed: 0x" + "f" * 20,
        "seed: &a [*a]",
        "? [1, 2]\n: 3",
        BOMB,
        BOMB.replace("seed:", "bits:"),
    ],
    ids=range(11),
)
def test_no_text_is_a_traceback_or_a_bomb(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(QartsrError) as caught:
        load_params(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said and len(said) < 1000


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("retrain", "lr"), float("inf")),
        (("retrain", "lr"), float("nan")),
        (("retrain", "betas"), [1e308, 0.9]),
        (("retrain", "betas"), [0.9, 1.0]),
        (("promote", "max_psnr_loss", "w4a4"), float("inf")),
        (("promote", "max_psnr_loss", "w4a4"), float("nan")),
        (("probe", "timesteps"), [2**64]),
        (("probe", "timesteps"), [1000]),
        (("seed",), 2**63),
        (("lpips", "seed"), -1),
        (("compute", "threads"), 2**31),
        (("budget", "steps"), 2**80),
    ],
    ids=str,
)
def test_absurd_numbers_are_refused_at_once(place: tuple[str, ...], value: Any, values: Any) -> None:
    section = values
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    with pytest.raises(QartsrError):
        parse_params(values, "params.yaml")


def _numbers(node: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every number of a JSON schema that is none of a list, with the place where it stands."""
    if isinstance(node, dict) and node.get("type") in ("integer", "number") and not {"enum", "const"} & set(node):
        yield place, node
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in parts:
        yield from _numbers(part, (*place, str(key)))


@pytest.mark.parametrize("schema", [Params, Experiments, RecipeConfig, Training])
def test_every_number_has_a_least_and_a_most(schema: type[BaseModel]) -> None:
    found = list(_numbers(schema.model_json_schema(), ()))
    ends = [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")]
    assert len(found) > 5
    assert not ["/".join(place) for place, node in found if not all(set(end) & set(node) for end in ends)]


def test_no_number_of_a_config_may_be_absurd(values: Any) -> None:
    leaves = list(_leaves(values))
    taken = []
    for keys in leaves:
        for absurd in (float("inf"), float("nan"), 1e300, -(10**30)):
            changed = copy.deepcopy(values)
            section = functools.reduce(operator.getitem, keys[:-1], changed)
            section[keys[-1]] = absurd
            try:
                parse_params(changed, "params.yaml")
                taken.append((keys, absurd))
            except QartsrError as error:
                assert "\n" not in str(error), keys
    assert len(leaves) > 40
    assert not taken


def _leaves(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys of every number of a file."""
    if isinstance(node, (int, float)) and not isinstance(node, bool):
        yield place
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in parts:
        yield from _leaves(part, (*place, key))
