"""The published script's geometry on sizes that its fixture does not have."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.upscale.official import Tiling, restore, tiled_unet, tiled_vae
from qartsr.upscale.official.image import enlarged, network_size
from qartsr.upscale.official.tiled_vae import spans
from tests.packing.tiny import tiny_model


def image(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@example(width=11, height=11, process=60)
@given(width=st.integers(1, 60), height=st.integers(1, 60), process=st.integers(0, 130))
@settings(max_examples=60)
def test_sizes(width: int, height: int, process: int) -> None:
    least = process // 4
    larger = enlarged(image(width, height), process)
    if min(width, height) >= least:
        assert larger.size == (width, height)
    else:  # as the script has it: 15 / 11 * 11 is below 15 in floating point, and is rounded down
        assert larger.size == tuple(int(least / min(width, height) * side) for side in (width, height))
    if min(larger.size) == 1:
        with pytest.raises(QartsrError, match="choose a larger process size"):
            network_size(image(width, height), process)
    else:
        assert network_size(image(width, height), process).size == tuple(4 * side // 8 * 8 for side in larger.size)


@given(size=st.integers(65, 3000), tile=st.integers(16, 1200), pad=st.sampled_from([11, 32]))
@settings(max_examples=300)
def test_vae_tiles_keep_every_pixel_once_and_see_beyond(size: int, tile: int, pad: int) -> None:
    try:
        found = spans(size, tile, pad)
    except QartsrError:
        return
    assert [span.kept.start for span in found] == [0, *(span.kept.stop for span in found[:-1])]
    assert found[-1].kept.stop == size
    for span in found:
        assert 0 <= span.seen.start <= max(0, span.kept.start - pad) or span.kept.start == 0
        assert min(size, span.kept.stop + pad) <= span.seen.stop + pad
        assert span.seen.start <= span.kept.start < span.kept.stop <= span.seen.stop


def test_vae_tiles_of_the_published_defaults() -> None:
    assert [span.kept for span in spans(2048, 1024, 32)] == [slice(0, 1024), slice(1024, 2048)]
    assert [(span.seen.start, span.seen.stop) for span in spans(2048, 1024, 32)] == [(0, 1056), (992, 2048)]
    assert [span.kept for span in spans(60, 1024, 32)] == [slice(0, 60)]


@given(size=st.integers(8, 500), tile=st.integers(8, 100), overlap=st.integers(0, 60))
@settings(max_examples=200)
def test_latent_tiles_cover(size: int, tile: int, overlap: int) -> None:
    tile = min(tile, size)
    begins = tiled_unet.starts(size, tile, min(overlap, tile - 1))
    assert begins[0] == 0 and begins[-1] == size - tile
    assert all(0 < after - before <= tile for before, after in itertools.pairwise(begins))


def test_one_tile_more_than_the_threshold() -> None:
    """Tiling depends on the area, not on the sides."""
    model, calls = tiny_model(), list[int]()
    model.unet.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        untiled = tiled_unet.predict_noise(model, torch.zeros(1, 4, 8, 18), 12, 4)
        assert (len(calls), untiled.shape) == (1, (1, 4, 8, 18))
        tiled_unet.predict_noise(model, torch.zeros(1, 4, 8, 19), 12, 4)
    assert len(calls) == 1 + len(tiled_unet.starts(19, 8, 4))


def test_latent_tiles_that_never_end_are_refused() -> None:
    with pytest.raises(QartsrError, match="tiles of 8 cannot overlap by 8"):
        tiled_unet.predict_noise(tiny_model(), torch.zeros(1, 4, 8, 90), 20, 8)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    """With channels in multiples of the script's 32 groups."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        return AutoencoderKL(**blocks, block_out_channels=(32, 64), norm_num_groups=32).eval().requires_grad_(False)


def test_tiled_vae_of_one_tile_is_the_network(vae: AutoencoderKL) -> None:
    x = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tiled_vae.run(tiled_vae.encoder(vae), [x])[0], vae.encoder(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tiled_vae.run(tiled_vae.decoder(vae), [z])[0], vae.decoder(z), rtol=1e-4, atol=1e-4)


def test_tiled_vae_of_equal_tiles_is_the_network_on_each(vae: AutoencoderKL) -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for output in tiled_vae.run(tiled_vae.encoder(vae), [x, x, x]):
        torch.testing.assert_close(output, vae.encoder(x), rtol=1e-4, atol=1e-4)


def test_vae_tiling_of_a_model_without_32_groups_is_refused() -> None:
    with pytest.raises(QartsrError, match="channels in multiples of 32, a layer has 4"):
        restore(tiny_model(), torch.zeros(1, 3, 16, 96), None, Tiling(encoder=16))
