"""The paper's Table 2, derived from the architecture; its parts, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qartsr.config import parse_bits
from qartsr.cost import Cost, as_text, cost_of, qartsr_method, subject
from qartsr.cost.convention import quantized, swin, tagger
from qartsr.cost.report import PARTS, TABLE_2, Component
from qartsr.cost.trace import Work
from qartsr.quantize import LayerPlan, Plan

BITS = [parse_bits(name) for name in ("w4a4", "w3a3", "w2a2")]


@pytest.fixture(scope="module")
def osediff() -> Cost:
    return cost_of(subject("osediff"), 512, BITS, 4)


@pytest.fixture(scope="module")
def sample() -> Cost:
    return cost_of(subject("sample"), 64, [parse_bits("w4a4"), parse_bits("w4a8"), parse_bits("w2a2")], 4)


def component(cost: Cost, name: str) -> Component:
    return next(component for component in cost.components if component.name == name)


@pytest.mark.parametrize("index", range(4))
def test_every_row_is_the_papers(osediff: Cost, index: int) -> None:
    """To the last digit printed; the paper cuts its 4523.6 G where others round."""
    row = osediff.rows[index]
    assert row.bits == list(TABLE_2)[index]
    assert row.paper == TABLE_2[row.bits]
    assert round(row.params_m) == row.paper.params_m
    assert (int if row.bits == "fp" else round)(row.ops_g) == row.paper.ops_g


def test_the_parts_of_the_floating_point_row_are_passionsrs(osediff: Cost) -> None:
    """Its Table 1, to the last digit printed; only the VAE's operations differ, by 0.006 %."""
    for line in osediff.rows[0].lines:
        published = next(value for name, value in PARTS.items() if line.name.startswith(name))
        assert line.params / 1e6 == pytest.approx(published.params_m, abs=1e-3), line
        assert 2 * line.macs / 1e9 == pytest.approx(published.ops_g, abs=0.25 if line.name == "VAE" else 2e-3), line


def test_nothing_of_the_floating_point_row_is_unexplained(osediff: Cost) -> None:
    assert osediff.rows[0].ops_g == pytest.approx(sum(part.ops_g for part in PARTS.values()), rel=1e-4)


def test_the_tagger_is_that_of_transformers() -> None:
    """The layers that the profiler sees, built as modules."""
    import torch
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=384, patch_size=4, embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12
    )
    with torch.device("meta"):
        model = SwinModel(config, add_pooling_layer=False)
    unseen = ("q_proj", "k_proj", "v_proj", ".query", ".key", ".value", "relative_position", "mask_token")
    seen = {n: p.numel() for n, p in model.named_parameters() if not any(part in n for part in unseen)}
    assert sum(seen.values()) == swin().params
    assert round(tagger().params / 1e3, 1) == 160_335.7


def test_real_sizes(osediff: Cost) -> None:
    assert component(osediff, "UNet").params == 865_910_724
    assert component(osediff, "VAE encoder").params + component(osediff, "VAE decoder").params == 83_653_863
    assert component(osediff, "text encoder").params == 340_387_840
    assert not component(osediff, "text encoder").runs
    running = [part for part in osediff.components if part.runs]
    assert sum(part.macs for part in running) == pytest.approx(2217.7e9, rel=1e-4)
    convolutions = sum(part.layers["conv3x3"][1] for part in running)
    assert convolutions / sum(part.macs for part in running) == pytest.approx(0.88, abs=0.001)


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 5, 6, 8, 16])
def test_no_other_rank_gives_table_2(osediff: Cost, rank: int) -> None:
    """The branches' parameters are proportional to the rank, but for a few layers with fewer outputs than that."""
    sizes = [row.params_m + (rank - 4) / 4 * row.lines[2].params / 1e6 for row in osediff.rows[1:]]
    assert [round(size) for size in sizes] != [row.paper.params_m for row in osediff.rows[1:]]


def test_a_file_of_four_bits_is_about_a_quarter_of_fp16(osediff: Cost) -> None:
    fp, w4, w3, w2 = (row.file_bytes / 1e6 for row in osediff.rows)
    assert (fp, w4, w3, w2) == pytest.approx((1899.4, 465.3, 353.3, 241.4), abs=0.1)


def test_the_document_shows_these_tables(osediff: Cost, root: Path) -> None:
    text = (root / "docs" / "cost.md").read_text()
    title, rows, _, lines, parts = as_text(osediff).split("\n\n")
    for block in (title, rows, lines, parts):
        assert block in text


def test_the_sample_model_has_no_published_row(sample: Cost) -> None:
    assert all(row.paper is None for row in sample.rows)
    assert [part.name for part in sample.components] == ["VAE encoder", "UNet", "VAE decoder"]
    assert [line.name for line in sample.rows[0].lines] == ["UNet", "VAE"]


def test_unequal_bits_count_the_weights_stored_and_the_wider_operand(sample: Cost) -> None:
    fp, w4a4, w4a8, _ = sample.rows
    assert w4a8.lines[0].params == w4a4.lines[0].params
    assert w4a8.lines[0].macs == 2 * w4a4.lines[0].macs == sum(line.macs for line in fp.lines) * 8 / 32


def test_another_size_is_not_compared_with_the_paper() -> None:
    cost = cost_of(subject("osediff"), 256, [], 4)
    assert cost.rows[0].paper is None
    assert component(cost, "text encoder").macs > 0


def test_lines_of_a_plan_by_hand() -> None:
    """A convolution at 4 bits, a linear layer at 8, one kept in float, and a norm that no plan names."""
    works = (
        Work("c", "conv3x3", (8, 4, 3, 3), 8 * 36 + 8, 100 * 8 * 36, 800),
        Work("l", "linear", (6, 5), 30, 7 * 30, 42),
        Work("f", "linear", (2, 2), 4, 4, 2),
        Work("n", "layer norm", (5,), 10, 0, 35),
        Work("g", "group norm", (8,), 16, 0, 800),
    )
    recipe = qartsr_method("sample", rank=2).layer
    plan = Plan(
        method="m",
        bits="w4a4",
        layers=(
            LayerPlan(name="c", weight_bits=4, input_bits=4, recipe=recipe),
            LayerPlan(name="l", weight_bits=8, input_bits=8, recipe=recipe),
            LayerPlan(name="f", weight_bits=4, input_bits=4, recipe=recipe, float=True),
        ),
    )
    base, kept, branch, side = quantized(["UNet", "VAE"], works, plan, parse_bits("w4a4"))
    assert base[1:] == ((296 + 30 + 4 + 10) / 8, (28800 + 210 + 4 + 4 * 35) / 8)
    assert kept[1:] == (30 / 8 + 4 * 28 / 32, 210 / 8 + 4 * 28 / 32)
    assert branch[1:] == (2 * (8 + 36 + 6 + 5) / 2, 0)
    assert side[1:] == ((8 + 4 + 6 + 5) / 2, 0)


def test_json_is_complete(osediff: Cost, sample: Cost) -> None:
    for cost in (osediff, sample):
        values = json.loads(json.dumps(cost.as_json()))
        assert set(values) == {"model", "size", "rank", "rows", "components"}
        for row, entry in zip(cost.rows, values["rows"], strict=True):
            assert set(entry) == {
                "bits", "params_m", "ops_g", "paper_params_m", "paper_ops_g", "params_deviation", "ops_deviation",
                "low_rank_ops_g", "file_bytes", "file_mb", "times_smaller_than_fp16", "lines",
            }  # fmt: skip
            assert entry["params_m"] == pytest.approx(sum(line["params_m"] for line in entry["lines"]))
            assert entry["ops_g"] == pytest.approx(sum(line["ops_g"] for line in entry["lines"]))
            assert entry["file_bytes"] == row.file_bytes
        for part in values["components"]:
            assert part["params"] == sum(layer["params"] for layer in part["layers"])
            assert part["macs"] == sum(layer["macs"] for layer in part["layers"])
