"""What this project takes of diffusers, and nothing else: UNet, VAE, SD3's transformer, three of their layers.

Asking diffusers for one network loads all of its networks, its hooks and every optional package that happens to be
installed (transformers, bitsandbytes, accelerate, SciPy, TorchDynamo): some 20 s of processor time in a full
environment, before a stage or a command begins. None of it runs here. So, while the modules below are imported,

- optional packages are promised instead of loaded: what diffusers takes from them stands in its modules as a
  :class:`_Promise`, which loads the package when it is first used;
- the packages that list all networks (``diffusers.models.unets``, ...) are deferred: their code runs when somebody
  asks them for a name, and their submodules can be imported at once;
- what diffusers tells TorchDynamo while it loads is said when TorchDynamo is loaded;
- the hub's interface is promised too, and the list of all installed packages is made when somebody looks into it.

Afterwards nothing is hidden: ``import transformers`` and ``from diffusers import StableDiffusionPipeline`` find the
real ones, whole, in the same process. Where a diffusers needs a package at once, it is imported the ordinary way.
Only this file imports diffusers (``tests/house/test_imports.py``).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

from qartsr.files import home_for_the_hub

_PROMISED = ("accelerate", "bitsandbytes", "peft", "requests", "scipy", "torchao", "torchvision", "transformers")
_DEFERRED = (
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)
_DYNAMO = "torch._dynamo"
_HUB = (
    "ModelCard",
    "ModelCardData",
    "create_repo",
    "model_info",
    "resolve_revision",
    "snapshot_download",
    "upload_folder",
)
"""Of huggingface_hub: what loads its whole interface, with an HTTP client."""


class _NeededNowError(Exception):
    """A promised package is used while diffusers loads: promises do not help."""


class _Promise:
    """A name of a package that is not loaded yet; as a class, a function or a base class it is the real one."""

    def __init__(self, package: _Promised | _Hub, name: str) -> None:
        self._package, self._name = package, name

    def _real(self) -> Any:
        return getattr(self._package._real(), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of anything by decorators, copy, inspect ...
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: object) -> bool:
        """Nothing is an instance of a class that nobody has loaded."""
        return self._package.__name__ in sys.modules and isinstance(instance, self._real())

    def __subclasscheck__(self, kind: type) -> bool:
        return self._package.__name__ in sys.modules and issubclass(kind, self._real())


class _Promised(ModuleType):
    """A package that will be loaded when one of its promised names is used."""

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            raise _NeededNowError(self.__name__)
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            return _Promise(self, name)
        return getattr(self._real(), name)


class _Hub:
    """huggingface_hub, which is loaded, and loads its parts when one of their names is used."""

    __name__ = "huggingface_hub.hf_api"

    def _real(self) -> ModuleType:
        return importlib.import_module("huggingface_hub")


class _Distributions(Mapping[str, list[str]]):
    """Names of packages and of what they were installed as; reads all of them when it is first asked."""

    @cached_property
    def _real(self) -> Mapping[str, list[str]]:
        return importlib.metadata.packages_distributions()

    def __getitem__(self, name: str) -> list[str]:
        return self._real[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._real)

    def __len__(self) -> int:
        return len(self._real)


class _Finder:
    """Finds promised packages and every module in them."""

    def __init__(self, packages: set[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        known = name.partition(".")[0] in self._packages
        return importlib.util.spec_from_loader(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Promised(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: promises are made when a name is asked for."""


class _Deferred(ModuleType):
    """A package whose own code runs when it is asked for a name; what is in it can be imported before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


class _AtDynamo:
    """Waits on ``sys.meta_path`` until TorchDynamo is loaded, then hands it what was said for it."""

    def __init__(self) -> None:
        self._allowed: list[Any] = []

    def allow_in_graph(self, what: Any) -> Any:
        """Keep a class or function for :func:`torch._dynamo.allow_in_graph`, which returns it as well."""
        if _DYNAMO in sys.modules and sys.modules[_DYNAMO] is not None:
            return sys.modules[_DYNAMO].allow_in_graph(what)
        self._allowed.append(what)
        return what

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _DYNAMO else None  # type: ignore[arg-type]
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_tell(module: ModuleType) -> None:
            run(module)
            sys.meta_path.remove(self)
            for what in self._allowed:
                module.allow_in_graph(what)

        spec.loader.exec_module = run_and_tell  # type: ignore[method-assign]
        return spec


@contextmanager
def _promises() -> Iterator[None]:
    """Installed packages are promised inside, loaded or not; afterwards everything is as it was."""
    installed = {name for name in _PROMISED if name in sys.modules or importlib.util.find_spec(name) is not None}
    loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in installed}
    finder: Any = _Finder(installed)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Promised)]:
            del sys.modules[name]
        sys.modules.update(loaded)


@contextmanager
def _hub_later() -> Iterator[None]:
    """Promise what diffusers takes of the hub's interface, and give it a list of packages that is made on demand."""
    hub, listing = importlib.import_module("huggingface_hub"), importlib.metadata.packages_distributions
    promised = [name for name in _HUB if name not in vars(hub) and name in dir(hub)]
    for name in promised:
        setattr(hub, name, _Promise(_Hub(), name))
    importlib.metadata.packages_distributions = _Distributions
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = listing
        for name in promised:
            delattr(hub, name)


@contextmanager
def _dynamo_later() -> Iterator[None]:
    """Note what diffusers marks for TorchDynamo, which takes longer to load than torch itself."""
    if _DYNAMO in sys.modules:
        yield
        return
    disable, waiting = torch.compiler.disable, _AtDynamo()

    def disable_later(fn: Any = None, recursive: bool = True, **_: Any) -> Any:
        return torch._disable_dynamo(fn, recursive)  # type: ignore[attr-defined]  # torch's own way: loads TorchDynamo when the function is called

    sys.modules[_DYNAMO] = None  # type: ignore[assignment]
    torch.compiler.disable = disable_later
    try:
        utils: Any = importlib.import_module("diffusers.utils.torch_utils")
        utils.maybe_allow_in_graph = waiting.allow_in_graph
        yield
    finally:
        torch.compiler.disable = disable
        del sys.modules[_DYNAMO]
        sys.meta_path.insert(0, waiting)


def _defer(name: str) -> None:
    parent, _, child = name.rpartition(".")
    package = importlib.import_module(parent)
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[name] = module
        setattr(package, child, module)


def _taken() -> tuple[Any, ...]:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.upsampling import Upsample2D

    return Attention, AutoencoderKL, ResnetBlock2D, SD3Transformer2DModel, UNet2DConditionModel, Upsample2D


def _load() -> tuple[Any, ...]:
    """The classes; by promises, or where these do not hold (a diffusers that nobody has tried) the ordinary way."""
    before = set(sys.modules)
    try:
        with _promises(), _hub_later(), _dynamo_later():
            for name in _DEFERRED:
                _defer(name)
            return _taken()
    except Exception:  # whatever it is: the ordinary import below either works, only slower, or raises its own error
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "diffusers":
                del sys.modules[name]
        return _taken()


logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where pyiqa brought it, it misses a kernel nobody uses

home_for_the_hub()
Attention, AutoencoderKL, ResnetBlock2D, SD3Transformer2DModel, UNet2DConditionModel, Upsample2D = _load()
