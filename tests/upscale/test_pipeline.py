"""The pipeline people call: what it takes, what it gives back, and that what it saves is what it loaded."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from qartsr import OneStepSRPipeline, QartsrError
from qartsr.engines import demand_known, engine_names
from qartsr.engines.interface import Simulated
from qartsr.files import read_json, sha256_file, sha256_tree, write_json
from qartsr.models import OneStepSR, save_model
from qartsr.packing import load_package, read_header, write_package
from qartsr.upscale import upscale_image
from qartsr.upscale.model_source import local, register_resolver
from tests.packing.tiny import quantize, recipe, tiny_model

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package file without company."""
    file = tmp_path_factory.mktemp("package") / "tiny.safetensors"
    model = tiny_model()
    write_package(file, model, quantize(model, "w4a4", recipe()), {"profile": "test"})
    return file


@pytest.fixture()
def described(package: Path, tmp_path: Path) -> Path:
    """A folder as the package stage leaves it."""
    folder = tmp_path / "described"
    folder.mkdir()
    shutil.copy(package, folder / "model.safetensors")
    write_json(folder / "summary.json", {"sha256": sha256_file(package), "metrics": {"one": {"psnr": 30.0}}})
    (folder / "README.md").write_text("# a card")
    return folder


@pytest.fixture()
def floating(tmp_path: Path) -> Path:
    save_model(tiny_model(), tmp_path / "floating")
    return tmp_path / "floating"


@pytest.fixture()
def pipe() -> OneStepSRPipeline:
    return OneStepSRPipeline(tiny_model())


def photo(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "mode"), [((3, 5), "L"), ((3, 5, 1), "L"), ((3, 5, 2), "LA"), ((3, 5, 3), "RGB"), ((3, 5, 4), "RGBA")]
)
def test_an_array_is_the_image_of_its_pixels(pipe: OneStepSRPipeline, shape: tuple[int, ...], mode: str) -> None:
    pixels = photo(*shape)
    image = Image.fromarray(pixels.reshape(3, 5) if mode == "L" else pixels)
    result = pipe(pixels)
    assert (result.mode, result.size) == (mode, (20, 12))
    assert result.tobytes() == pipe(image).tobytes() == upscale_image(pipe.model, image).tobytes()
    assert pipe(np.asfortranarray(pixels)[::-1, ::-1]).size == (20, 12)


def test_several_are_a_list_and_a_path_is_read_upright(pipe: OneStepSRPipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(photo(4, 8, 3)).save(tmp_path / "in.jpg", exif=exif)
    path, pixels, runs = tmp_path / "in.jpg", photo(2, 3), list[int]()
    results = pipe([path, str(path), pixels], lambda done, total: runs.append(done))
    assert [image.size for image in results] == [(16, 32), (16, 32), (12, 8)]
    assert pipe((pixels,))[0].tobytes() == results[2].tobytes() and pipe([]) == []
    assert runs == [1, 1, 1]
    with Image.open(path) as opened:
        assert pipe(opened).size == (32, 16), "whoever opened it decides"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (photo(3, 5, 3).astype(float), "image: is an array of float64 with shape .3, 5, 3.; give uint8"),
        (photo(1, 3, 5, 3), "image: is an array of uint8 with shape .1, 3, 5, 3.; .* several as a list"),
        (photo(3, 5, 5), "image: is an array"),
        (photo(0, 5), "image: has no pixels"),
        (torch.zeros(1, 3, 4, 4), "image: is a Tensor; give a Pillow image, an array of uint8 or the path of a file"),
        (None, "image: is a NoneType"),
        ("nothing.png", "nothing.png: does not exist"),
    ],
)
def test_what_is_no_image(pipe: OneStepSRPipeline, wrong: Any, sentence: str) -> None:
    with pytest.raises(QartsrError, match=sentence):
        pipe(wrong)


def test_a_folder(pipe: OneStepSRPipeline, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "sub.png").mkdir(parents=True)
    Image.fromarray(photo(3, 2, 3)).save(source / "b.png", icc_profile=b"a profile")
    Image.fromarray(photo(2, 2)).save(source / "a.JPG")
    for name in (".hidden.png", "notes.txt"):
        (source / name).touch()
    assert pipe.upscale_folder(source, str(target)) == [target / "a.JPG", target / "b.png"]
    with Image.open(target / "b.png") as written:
        assert written.size == (8, 12) and written.info["icc_profile"] == b"a profile"
    (source / "c.png").write_bytes(b"damaged")
    with pytest.raises(QartsrError, match=r"c.png: cannot be read"):
        pipe.upscale_folder(source, target)
    refused = {
        source / "a.JPG": "is not a folder",
        target: "both the input and the output",
        source / "sub.png": "has no PNG",
    }
    for wrong, sentence in refused.items():
        with pytest.raises(QartsrError, match=sentence):
            pipe.upscale_folder(wrong, target)


def test_a_saved_package_is_the_package(package: Path, tmp_path: Path) -> None:
    pipe, image = OneStepSRPipeline.from_pretrained(package, device="cpu"), photo(5, 4, 3)
    pipe.save_pretrained(tmp_path / "new" / "saved")
    saved = tmp_path / "new" / "saved"
    assert (saved / "model.safetensors").read_bytes() == package.read_bytes()
    header = read_header(package)
    assert read_json(saved / "summary.json") == {
        "bits": "w4a4",
        "method": header["method"],
        "sha256": sha256_file(package),
        "bytes": package.stat().st_size,
        "metrics": {},
        "fp": {},
    }
    assert OneStepSRPipeline.from_pretrained(saved)(image).tobytes() == pipe(image).tobytes()
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_summary_and_card_travel_along(described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(described.parent)
    pipe = OneStepSRPipeline.from_pretrained(described.name)
    monkeypatch.chdir("/")
    pipe.save_pretrained(tmp_path / "a")
    assert sha256_tree(tmp_path / "a") == sha256_tree(described)
    write_json(described / "summary.json", {"sha256": "of another"})
    OneStepSRPipeline.from_pretrained(described).save_pretrained(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["model.safetensors", "summary.json"]


def test_a_saved_floating_point_model_is_its_folder(floating: Path, tmp_path: Path) -> None:
    (floating / "notes.txt").write_text("not the model's")
    OneStepSRPipeline.from_pretrained(floating).save_pretrained(tmp_path / "loaded")
    OneStepSRPipeline(tiny_model()).save_pretrained(tmp_path / "made")
    (floating / "notes.txt").unlink()
    assert sha256_tree(floating) == sha256_tree(tmp_path / "loaded") == sha256_tree(tmp_path / "made")


def test_what_cannot_be_saved(package: Path, tmp_path: Path) -> None:
    model = tiny_model()
    quantize(model, "w4a4", recipe())
    packed = OneStepSRPipeline.from_pretrained(package).model
    for quantized in (model, packed):
        with pytest.raises(QartsrError, match="a quantized model that was not loaded from a file"):
            OneStepSRPipeline(quantized).save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_other_content_is_never_replaced(package: Path, tmp_path: Path) -> None:
    pipe, folder = OneStepSRPipeline.from_pretrained(package), tmp_path / "saved"
    folder.mkdir()
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder)
    before = sha256_tree(folder)
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    (folder / "mine.txt").touch()
    for target, sentence in ((folder, "holds other files"), (tmp_path / "file", "is a file")):
        with pytest.raises(QartsrError, match=f"{target}: {sentence}"):
            pipe.save_pretrained(target)
    with pytest.raises(QartsrError, match="cannot be written"):
        pipe.save_pretrained(tmp_path / "file" / "saved")
    (folder / "mine.txt").unlink()
    assert sha256_tree(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "file", "saved"]


def test_a_file_that_has_changed_is_not_saved_as_the_model(described: Path, tmp_path: Path) -> None:
    file, pipe = described / "model.safetensors", OneStepSRPipeline.from_pretrained(described)
    file.write_bytes(file.read_bytes())
    with pytest.raises(QartsrError, match="has changed since it was loaded; load it again"):
        pipe.save_pretrained(tmp_path / "saved")
    file.unlink()
    with pytest.raises(QartsrError, match=r"model\.safetensors"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_the_engine_and_its_reason_are_logged(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "qartsr"):
        pipe = OneStepSRPipeline.from_pretrained(package, device="cpu", engine="simulated")
    assert (pipe.engine, pipe.reason) == ("simulated", "as asked")
    assert [record.getMessage() for record in caplog.records] == ["engine simulated on cpu: as asked"]
    chosen = OneStepSRPipeline.from_pretrained(package, device="cpu")
    assert chosen.engine in engine_names() and chosen.reason
    assert OneStepSRPipeline(tiny_model()).engine == "none"


def test_an_unknown_engine_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match=r"engine: unknown engine 'steam'; choose one of auto, .*simulated"):
        OneStepSRPipeline.from_pretrained(tmp_path / "nothing", engine="steam")
    for name in engine_names():
        demand_known(name)


class Rebuilding:
    """An engine that hands out another model than the one it was given."""

    name: ClassVar[str] = "rebuilding"

    def refusal(self, model: OneStepSR, device: torch.device) -> str | None:
        return None if device.type == "cpu" else "it wants a CPU"

    def prepare(self, model: OneStepSR) -> OneStepSR:
        return tiny_model("none", seed=1)


def test_an_engine_that_rebuilds_the_model_does_not_change_what_is_saved(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["qartsr.engines.choose"], "_PREFERRED", (Rebuilding(), Simulated()))
    pipe = OneStepSRPipeline.from_pretrained(package, device="cpu")
    assert (pipe.engine, pipe.reason) == ("rebuilding", "rebuilding is the fastest that can run")
    assert pipe.model.align == "none"
    pipe.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == package.read_bytes()


def test_addresses(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QartsrError, match=r"hub:/NAME: nobody here can resolve .*here: hf:/, models:/"):
        OneStepSRPipeline.from_pretrained("hub:/NAME")
    asked: list[str] = []

    def resolve(address: str) -> Path:
        asked.append(address)
        return package

    monkeypatch.setattr("qartsr.upscale.model_source._RESOLVERS", {})
    register_resolver("hub", resolve)
    assert OneStepSRPipeline.from_pretrained("hub:/NAME").engine and asked == ["hub:/NAME"]
    assert local("C:/models") == Path("C:/models")


def test_a_registered_model_without_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(QartsrError, match="MLFLOW_TRACKING_URI: is not set"):
        OneStepSRPipeline.from_pretrained("models:/NAME@champion")


def test_arrays_and_tensors_in_the_manner_of_diffusers() -> None:
    pipe = OneStepSRPipeline(tiny_model())
    images = [np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8) for seed in (0, 1)]
    array, tensor = pipe(images, output_type="np"), pipe(images, output_type="pt")
    assert (array.shape, array.dtype, tuple(tensor.shape)) == ((2, 24, 20, 3), np.float32, (2, 3, 24, 20))
    expected = [np.asarray(picture) for picture in pipe(images)]
    np.testing.assert_array_equal(np.rint(array * 255), expected)
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1), array)
    wide = (images[0].astype(np.uint16) * 257) | 1
    np.testing.assert_array_equal(np.rint(pipe(wide, output_type="np")[0] * 65535), pipe(wide).wide)
    with pytest.raises(QartsrError, match="several sizes"):
        pipe([images[0], images[1][:3]], output_type="np")
    with pytest.raises(QartsrError, match="choose pil, np or pt"):
        pipe(images[0], output_type="latent")  # type: ignore[call-overload]


def test_a_pipeline_moves_where_its_engine_can() -> None:
    pipe = OneStepSRPipeline(tiny_model())
    assert pipe.to("cpu") is pipe
    with pytest.raises(QartsrError, match="is not available here"):
        pipe.to("cuda:99")
    pipe.engine = "openvino"
    assert pipe.to("cpu") is pipe


@pytest.mark.parametrize("engine", ["simulated", "integer"])
def test_what_a_program_sets_for_all_of_torch_changes_nothing(package: Path, floating: Path, engine: str) -> None:
    pixels, sources = photo(9, 8, 3), ((package, engine), (floating, "auto"))

    def results() -> list[np.ndarray[Any, Any]]:
        pipes = [OneStepSRPipeline.from_pretrained(path, device="cpu", engine=name) for path, name in sources]
        return [np.asarray(pipe(pixels)) for pipe in pipes]

    usual = results()
    for dtype, device in ((torch.float16, None), (torch.float64, None), (torch.float32, "meta")):
        try:
            torch.set_default_dtype(dtype)
            torch.set_default_device(device)
            found = results()
            assert torch.get_default_dtype() == dtype and torch.get_default_device().type == (device or "cpu")
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        for one, other in zip(usual, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_dtype_generator_and_callback(floating: Path, package: Path, tmp_path: Path) -> None:
    pixels = photo(6, 5, 3)
    usual = OneStepSRPipeline.from_pretrained(floating, device="cpu")
    half = OneStepSRPipeline.from_pretrained(floating, device="cpu", torch_dtype=torch.bfloat16)
    assert isinstance(half.model, OneStepSR) and half.model.dtype == torch.bfloat16
    difference = np.abs(np.asarray(half(pixels)).astype(int) - np.asarray(usual(pixels)))
    assert 0 < difference.max() < 32
    rounded = half.to("cpu", torch.float32)  # the weights stay rounded: another model than the files'
    assert rounded.digest() != usual.digest()
    rounded.save_pretrained(tmp_path / "rounded")
    again = OneStepSRPipeline.from_pretrained(tmp_path / "rounded", device="cpu")
    assert again(pixels).tobytes() == rounded(pixels).tobytes()
    assert half.to(torch.bfloat16)(pixels).size == (20, 24)
    for told in (torch.float16, torch.float64):
        with pytest.raises(QartsrError, match=r"torch_dtype: torch.float.. is not what this model is computed in"):
            OneStepSRPipeline.from_pretrained(package, device="cpu", torch_dtype=told)
        with pytest.raises(QartsrError, match="torch_dtype"):
            OneStepSRPipeline(load_package(package)).to(told)  # handed over in memory, it is a package still
    seeds = [usual(pixels, generator=torch.Generator().manual_seed(seed)).tobytes() for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2] and usual(pixels).tobytes() not in seeds
    drawing = torch.Generator().manual_seed(1)
    first, second = usual([pixels, pixels], generator=drawing)
    assert first.tobytes() == seeds[0] != second.tobytes()
    steps: list[tuple[Any, ...]] = []
    usual(pixels, callback_on_step_end=lambda *each: steps.append(each))
    assert steps == [(usual, 0, 1, {})]


@pytest.mark.long
def test_a_folder_for_the_hub(described: Path, floating: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client's calls, with a folder in the place of its server."""
    import huggingface_hub

    def upload_folder(_: Any, *, repo_id: str, folder_path: Path, **more: Any) -> Any:
        shutil.copytree(folder_path, tmp_path / repo_id)
        return huggingface_hub.CommitInfo(f"https://huggingface.co/{repo_id}/commit/1", more["commit_message"], "", "1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **more: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **more: str(tmp_path / name))
    for source, name in ((described, "me/packed"), (floating, "me/float")):
        pipe = OneStepSRPipeline.from_pretrained(source, device="cpu")
        assert pipe.push_to_hub(name) == f"https://huggingface.co/{name}/commit/1"
        index = read_json(tmp_path / name / "model_index.json")
        assert index["_class_name"] == "OneStepSRPipeline"
        again = OneStepSRPipeline.from_pretrained(f"hf://{name}", device="cpu")
        assert again(np.zeros((3, 2), np.uint8)).size == (8, 12)
    assert (tmp_path / "me/packed/README.md").read_text() == "# a card"
    card = huggingface_hub.ModelCard.load(tmp_path / "me/float/README.md")
    assert card.data.library_name == "qartsr" and "hf://me/float" in card.text
    with pytest.raises(QartsrError, match="nothing: is no repository of the hub; write USER/NAME"):
        pipe.push_to_hub("nothing")
    monkeypatch.delattr(huggingface_hub, "snapshot_download")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **more: 1 / 0, raising=False)
    with pytest.raises(QartsrError, match="hf://me/x: the hub refuses or is out of reach"):
        OneStepSRPipeline.from_pretrained("hf://me/x")
