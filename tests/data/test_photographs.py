from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from qartsr.config import load_params
from qartsr.config.data import PhotographsConfig
from qartsr.data.photographs import PHOTOGRAPHS, photograph_file
from qartsr.errors import QartsrError


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_there_unchanged_and_readable(name: str) -> None:
    path = photograph_file(name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == PHOTOGRAPHS[name].sha256
    with Image.open(path) as image:
        assert min(image.size) >= 300


@pytest.mark.parametrize("name", [n for n, p in PHOTOGRAPHS.items() if p.package == "scikit-image"])
def test_scikit_image_knows_the_file_by_the_same_hash_and_states_the_licence(name: str) -> None:
    """Its own table of hashes, and the docstring that the licence rests on."""
    folder, record = photograph_file(name).parent, PHOTOGRAPHS[name]
    assert record.sha256 in (folder / "_registry.py").read_text()
    docstring = (folder / "_fetchers.py").read_text().split(f"def {name}(")[1].split('"""')[1]
    words = re.sub(r"\s+", " ", docstring)
    assert record.licence.lower() in words.lower()
    credit = {"brick": "CC0Textures", "gravel": "CC0Textures"}.get(name, record.credit.partition(",")[0])
    assert credit.split(" (")[0] in words
    assert record.source in words or record.source == f"skimage.data.{name}"


@pytest.mark.parametrize("name", ["china", "flower"])
def test_scikit_learn_states_licence_and_source(name: str) -> None:
    readme = (photograph_file(name).parent / "README.txt").read_text()
    part = readme.split(f"Image: {name}.jpg")[1].split("Image:")[0]
    assert "creativecommons.org/licenses/by/2.0/" in part and PHOTOGRAPHS[name].licence == "CC BY 2.0"
    assert PHOTOGRAPHS[name].source in part
    assert f"flickr.com/photos/{PHOTOGRAPHS[name].credit}/" in part  # the account that the link leads to


def test_grace_hopper_names_its_source_inside_the_file() -> None:
    with Image.open(photograph_file("grace_hopper")) as image:
        assert PHOTOGRAPHS["grace_hopper"].source in image.info["comment"].decode()


def test_unknown_names_are_refused_with_the_closest_one() -> None:
    with pytest.raises(QartsrError, match="no photograph 'astronout'; use 'astronaut'"):
        photograph_file("astronout")


@pytest.mark.parametrize("name", ["page", "motorcycle_left", "moon", "lfw_subset"])
def test_photographs_without_a_licence_statement_are_not_offered(name: str) -> None:
    assert name not in PHOTOGRAPHS


def test_a_missing_wheel_and_a_changed_file_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(PHOTOGRAPHS)
    table["camera"] = table["camera"]._replace(file="no_such_package/camera.png")
    table["coins"] = table["coins"]._replace(file="skimage/data/no_such_file.png")
    table["coffee"] = table["coffee"]._replace(sha256="0" * 64)
    monkeypatch.setattr("qartsr.data.photographs.PHOTOGRAPHS", table)
    for name in ("camera", "coins"):
        with pytest.raises(QartsrError, match=r"comes with scikit-image, .* pip install scikit-image"):
            photograph_file(name)
    with pytest.raises(
        QartsrError, match=r"coffee\.png: is not the photograph .* hash differs.*install the scikit-image"
    ):
        photograph_file("coffee")


def test_finding_photographs_imports_none_of_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = {"skimage", "sklearn", "matplotlib"}
    for module in heavy:
        monkeypatch.delitem(sys.modules, module, raising=False)
    for name in PHOTOGRAPHS:
        photograph_file(name)
    assert not heavy & set(sys.modules)


def test_documentation_says_what_the_table_says(root: Path) -> None:
    images = load_params(root / "configs" / "sample.yaml").data.images
    assert isinstance(images, PhotographsConfig)
    bundled, shipped = (
        [
            [cell.strip(" `") for cell in line.split("|")[1:-1]]
            for line in part.split("\n\n")[0].splitlines()
            if line.startswith("| `")
        ]
        for part in (root / "docs" / "data.md").read_text().split("| name | split |")[1:]
    )
    rows = [*bundled, *([name, split, "", *rest] for name, split, *rest in shipped)]
    assert {row[0] for row in rows} == set(PHOTOGRAPHS) >= {*images.train, *images.test}
    for name, split, package, licence, credit, source in rows:
        record = PHOTOGRAPHS[name]
        assert (split == "test") == (name in images.test)
        assert (package, licence, credit) == (record.package, record.licence, record.credit)
        assert source.strip("<>") == record.source
