"""Counts of SD3's transformers: TSD-SR's, and the published figures of Q-DiT4SR's cost table (docs: video_dit, 2.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import SD3Transformer2DModel

from qartsr.config import parse_bits
from qartsr.cost import Work, cost_of, subject, trace
from qartsr.models import blank
from qartsr.synthetic import ARCHITECTURES

WIDTH, HIDDEN, TOKENS, TEXT = 1536, 6144, 1024, 333


@pytest.fixture(scope="module")
def medium() -> tuple[Work, ...]:
    """SD 3.5-medium's layers at 512 x 512 (1024 tokens) and a prompt of 333."""
    with torch.device("meta"):
        model = SD3Transformer2DModel(
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=WIDTH,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ).eval()
        latent, text, pooled = torch.zeros(1, 16, 64, 64), torch.zeros(1, TEXT, 4096), torch.zeros(1, 2048)
        return trace(model, latent, text, pooled, torch.zeros(1))


def _shared(works: tuple[Work, ...]) -> Iterator[Work]:
    """What DiT4SR's LR stream runs a second time: queries, keys and values, and the feed-forward of the image."""
    ends = (".to_q", ".to_k", ".to_v", ".ff.net.0.proj", ".ff.net.2")
    return (work for work in works if work.name.endswith(ends))


def test_dit4sr_costs_what_is_published(medium: tuple[Work, ...]) -> None:
    """2,716.8 M parameters; 170,476 G at 40 steps with guidance, of the blocks' linear layers alone; W4A4 2,664 G.

    Beside SD 3.5-medium: four linear layers per attention for the LR stream, a depthwise 3 x 3 convolution per block,
    and the text projections of the second attentions, which never run.
    """
    linear, attentions, second, blocks = WIDTH * WIDTH + WIDTH, 24 + 13, 13, 24
    control, depthwise, idle = attentions * 4 * linear, blocks * HIDDEN * (9 + 1), second * 4 * linear
    base = sum(work.params for work in medium)
    assert base / 1e6 == pytest.approx(2243.2, abs=0.05)
    assert (base + control + depthwise + idle) / 1e6 == pytest.approx(2716.8, abs=0.05)
    inside = [work for work in medium if work.name.startswith("transformer_blocks.") and work.kind == "linear"]
    lr = sum(work.macs for work in _shared(medium)) + attentions * 4 * WIDTH * WIDTH * TOKENS
    evaluation = sum(work.macs for work in inside) + lr
    assert evaluation / 1e9 == pytest.approx(2130.95, abs=0.01)
    whole = 40 * 2 * evaluation / 1e9
    assert whole == pytest.approx(170_476, abs=1)
    assert whole * (4 * 4) / 32**2 == pytest.approx(2_664, abs=0.5)  # unlike QArtSR's table: bits of both, multiplied


def test_tsdsr_has_sd3_mediums_counts_and_a_third_of_it_is_constant() -> None:
    model = blank(ARCHITECTURES["tsdsr"]())
    parameters = dict(model.transformer.named_parameters(prefix="transformer"))
    assert sum(value.numel() for value in parameters.values()) / 1e6 == pytest.approx(2028.3, abs=0.05)
    shapes = model.constant_shapes(154)
    folded = sum(value.numel() for name, value in parameters.items() if name.startswith(tuple(f"{n}." for n in shapes)))
    assert folded / 1e6 == pytest.approx(696.8, abs=0.05)  # 675.2 modulations, 8.3, 6.3 and 7.1
    kept = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert kept / 1e6 == pytest.approx(1.4, abs=0.05)
    assert not any(name.endswith("pos_embed.pos_embed") for name in model.state_dict())  # 56.6 M numbers


def test_tsdsr_can_be_asked_about() -> None:
    cost = cost_of(subject("tsdsr"), 512, [parse_bits("w4a4")], 4)
    (dit,) = (component for component in cost.components if component.name == "DiT")
    assert dit.params / 1e6 == pytest.approx(2028.3, abs=0.05)
    fp, w4a4 = cost.rows
    assert fp.paper is None and w4a4.file_bytes < fp.file_bytes / 4 and w4a4.params_m < fp.params_m / 6
    assert next(line.name for line in w4a4.lines) == "DiT and VAE at w4a4"
