"""Photographs of the wheels of scikit-image, scikit-learn and matplotlib, and of photographs/: files, hashes, licences.

docs/data.md has the same table with the words each licence rests on, and what was left out for want of them.
"""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from qartsr.errors import QartsrError
from qartsr.files import read_json, sha256_file


class Photograph(NamedTuple):
    """One bundled photograph."""

    name: str
    package: str
    """distribution to install"""
    file: str
    """import name of the package, then the path inside it"""
    sha256: str
    licence: str
    credit: str
    source: str
    """where its licence is stated: an address, or the function whose docstring says it"""
    set: str = "photographs"
    """tables of figures have a line per set"""


_SHIPPED = Path(__file__).parents[2] / "photographs"
"""wallpapers that a checkout of the project has, and an installed wheel has not"""


PHOTOGRAPHS: dict[str, Photograph] = {
    photograph.name: photograph
    for photograph in (
        Photograph(
            "astronaut",
            "scikit-image",
            "skimage/data/astronaut.png",
            "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            "public domain",
            "NASA",
            "https://flic.kr/p/r9qvLn",
        ),
        Photograph(
            "brick",
            "scikit-image",
            "skimage/data/brick.png",
            "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
            "CC0",
            "CC0Textures",
            "https://cc0textures.com/view.php?tex=Bricks25",
        ),
        Photograph(
            "camera",
            "scikit-image",
            "skimage/data/camera.png",
            "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
            "CC0",
            "Lav Varshney",
            "https://github.com/scikit-image/scikit-image/issues/3927",
        ),
        Photograph(
            "chelsea",
            "scikit-image",
            "skimage/data/chelsea.png",
            "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
            "CC0",
            "Stefan van der Walt",
            "skimage.data.chelsea",
        ),
        Photograph(
            "coffee",
            "scikit-image",
            "skimage/data/coffee.png",
            "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
            "CC0",
            "Rachel Michetti, courtesy of Pikolo Espresso Bar",
            "skimage.data.coffee",
        ),
        Photograph(
            "coins",
            "scikit-image",
            "skimage/data/coins.png",
            "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
            "no known copyright restrictions",
            "Brooklyn Museum",
            "https://www.brooklynmuseum.org/opencollection/archives/image/51611",
        ),
        Photograph(
            "grass",
            "scikit-image",
            "skimage/data/grass.png",
            "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
            "CC0",
            "linolafett",
            "https://www.deviantart.com/linolafett/art/Grass-01-434853879",
        ),
        Photograph(
            "gravel",
            "scikit-image",
            "skimage/data/gravel.png",
            "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
            "CC0",
            "CC0Textures",
            "https://cc0textures.com/view.php?tex=Gravel04",
        ),
        Photograph(
            "hubble_deep_field",
            "scikit-image",
            "skimage/data/hubble_deep_field.jpg",
            "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
            "public domain",
            "NASA",
            "http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
        ),
        Photograph(
            "immunohistochemistry",
            "scikit-image",
            "skimage/data/ihc.png",
            "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
            "no known copyright restrictions",
            "Center for Microscopy And Molecular Imaging (CMMI)",
            "skimage.data.immunohistochemistry",
        ),
        Photograph(
            "retina",
            "scikit-image",
            "skimage/data/retina.jpg",
            "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
            "CC0",
            "Mikael Häggström",
            "https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
        ),
        Photograph(
            "rocket",
            "scikit-image",
            "skimage/data/rocket.jpg",
            "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
            "public domain",
            "SpaceX",
            "https://www.flickr.com/photos/spacexphotos/16511594820/in/photostream/",
        ),
        Photograph(
            "china",
            "scikit-learn",
            "sklearn/datasets/images/china.jpg",
            "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
            "CC BY 2.0",
            "danielbuechele",
            "https://www.flickr.com/photos/danielbuechele/6061409035/sizes/z/in/photostream/",
        ),
        Photograph(
            "flower",
            "scikit-learn",
            "sklearn/datasets/images/flower.jpg",
            "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
            "CC BY 2.0",
            "vultilion",
            "https://www.flickr.com/photos/vultilion/6056698931/sizes/z/in/photostream/",
        ),
        Photograph(
            "grace_hopper",
            "matplotlib",
            "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
            "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
            "public domain",
            "James S. Davis, US Navy",
            "http://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg",
        ),
    )
}
if (_SHIPPED / "manifest.json").is_file():
    PHOTOGRAPHS |= {
        entry["name"]: Photograph(package="", set="wallpapers", **entry)
        for entry in read_json(_SHIPPED / "manifest.json")
    }


def photograph_file(name: str) -> Path:
    """Path of a bundled photograph, its hash checked.

    Raises QartsrError naming what is unknown, missing or changed.
    """
    if name not in PHOTOGRAPHS:
        close = difflib.get_close_matches(name, PHOTOGRAPHS, n=1, cutoff=0.0)[0]
        raise QartsrError(
            f"there is no photograph {name!r}",
            "data.images",
            f"use {close!r} or another of docs/data.md (the wallpapers of photographs/ come with a checkout only)",
        )
    record = PHOTOGRAPHS[name]
    path = _installed(record.file) if record.package else _SHIPPED / record.file
    if path is None or not path.is_file():
        raise QartsrError(
            f"photograph {name!r} comes with {record.package or 'the project'}, which is not installed or lacks it",
            "data.images",
            f"pip install {record.package}, or take {name!r} out of the list" if record.package else "git checkout it",
        )
    if sha256_file(path) != record.sha256:
        raise QartsrError(
            f"is not the photograph {name!r} that was used here (its hash differs)",
            str(path),
            f"install the {record.package} of constraints.txt" if record.package else "git checkout it",
        )
    return path


def _installed(file: str) -> Path | None:
    """A file of a package, which is located, not imported."""
    module, _, inside = file.partition("/")
    spec = find_spec(module)
    return Path(spec.origin).parent / inside if spec is not None and spec.origin is not None else None
