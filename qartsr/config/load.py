"""Read params.yaml into ``Params``, or say in one sentence what is wrong with it."""

from __future__ import annotations

import difflib
import reprlib
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qartsr.config.base import Config
from qartsr.config.schema import Params
from qartsr.errors import QartsrError, dotted, short

Schema = TypeVar("Schema", bound=Config)
_MOST_VALUES = 100_000
_BRIEFLY = reprlib.Repr()
_BRIEFLY.maxstring = _BRIEFLY.maxother = 200
_BRIEFLY.maxlist = _BRIEFLY.maxtuple = _BRIEFLY.maxdict = 12
_BRIEFLY.maxlevel = 3
_WORDS = {
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "model_type": "must hold keys and values",
    "model_attributes_type": "must hold keys and values",
    "dict_type": "must hold keys and values",
    "string_type": "must be text",
}
"""Kind of fault -> what it is in a YAML file; pydantic speaks of Python's types."""


def load_params(path: Path) -> Params:
    """Validate the file whole. Raises QartsrError naming file, key and, for an unknown key, the closest valid one."""
    return load_config(Params, path)


def load_config(schema: type[Schema], path: Path) -> Schema:
    """As :func:`load_params`, for a file of another schema."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QartsrError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except UnicodeDecodeError as error:
        raise QartsrError("is not UTF-8 text", str(path), "name a YAML file") from error
    except RecursionError as error:
        raise QartsrError("is not YAML (nested too deeply)", str(path), "mend that line") from error
    except Exception as error:  # YAML's own, and what Python makes of `!!int abc` or of 2024-99-99
        words = " ".join(str(error).split())[:300]
        raise QartsrError(f"is not YAML ({words or type(error).__name__})", str(path), "mend that line") from error
    return _parse(schema, values, str(path))


def _demand_few(values: Any, where: str) -> None:
    """Some lines of aliases of aliases can stand for more values than memory holds."""
    waiting, seen = [values], 0
    while waiting:
        value, seen = waiting.pop(), seen + 1
        if seen > _MOST_VALUES:
            raise QartsrError(f"holds more than {_MOST_VALUES} values", where, "write it without aliases")
        if isinstance(value, dict | list):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
        elif isinstance(value, int) and abs(value) >> 63:
            raise QartsrError(f"the number {short(value, 40)} is too large", where, "correct that value")


def parse_params(values: Any, where: str) -> Params:
    """Validate already parsed values; ``where`` names their origin in messages."""
    return _parse(Params, values, where)


def _parse(schema: type[Schema], values: Any, where: str) -> Schema:
    _demand_few(values, where)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = dotted(first["loc"]) or "the file"
        raise QartsrError(*_sentence(schema, first, key, where)) from error


def _sentence(schema: type[Config], error: ErrorDetails, key: str, where: str) -> tuple[str, str, str]:
    if error["type"] == "missing":
        return f"{key}: is missing", where, "add it" + (", as in the files of configs/" if schema is Params else "")
    if error["type"] != "extra_forbidden":
        said = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
        return (
            f"{key}: {said} (got {_BRIEFLY.repr(error['input'])})"[:400],
            where,
            "correct that value",
        )
    name = str(error["loc"][-1])
    close = difflib.get_close_matches(name, sorted(_all_keys(schema)), n=1, cutoff=0.0)
    return f"unknown key {short(key)}", where, f"did you mean {close[0]!r}?" if close else "remove it"


def _all_keys(model: type[BaseModel]) -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for nested in _models_in(field.annotation):
            keys |= _all_keys(nested)
    return keys


def _models_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
