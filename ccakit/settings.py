"""Settings: dataclasses from and to flags, YAML and JSON."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Annotated, get_type_hints

from annotated_types import Ge, Le

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


def check_limits(config: object) -> None:
    """Check every field against its type and limits; ValueError names the field and what it must be.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     keep: Positive = 0
    >>> check_limits(Config())
    Traceback (most recent call last):
    ValueError: keep: Input should be greater than or equal to 1, not 0
    """
    _converted(type(config), vars(config))


def _converted(kind: type, values: dict) -> dict:
    """Convert values to the types of the fields of `kind`; ValueError names the first that does not fit."""
    from pydantic import ValidationError

    converted, adapters = {}, _adapters(kind)
    for name, value in values.items():
        try:
            converted[name] = adapters[name].validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, [name, *first["loc"]]))
            raise ValueError(f"{field}: {first['msg']}, not {first['input']!r}") from error
    return converted


@cache
def _adapters(kind: type) -> dict:
    """Make what checks and converts a value, for each field of a dataclass."""
    from pydantic import TypeAdapter

    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(kind)}


@dataclasses.dataclass
class CommandConfig:
    """The settings that all commands share, and the check of their limits."""

    json: bool = False
    """End with one machine-readable line."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, Path):  # YAML and --flag=~/folder, which no shell expands
                setattr(self, name, value.expanduser())
        check_limits(self)


def from_preset(kind: type, preset: str | None) -> object:
    """The dataclass with a preset's values; ValueError lists the presets the command has."""
    presets = getattr(kind, "presets", {})
    if preset is not None and preset not in presets:
        raise ValueError(f"no preset {preset!r} for this command; there are: {', '.join(presets) or 'none'}")
    return kind(**presets.get(preset, {}))


def from_yaml(config: object, path: Path) -> object:
    """`config` with the values of a YAML file; ValueError names the file and the key that does not fit."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_bytes())  # UTF-8 by the YAML standard, with a BOM or without
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML in UTF-8: {' '.join(str(error).split())}") from error
    if isinstance(values, dict):  # YAML reads `no` as false, and 1 as a number
        values = {k: str(v) if k == "freeze" and isinstance(v, int) else v for k, v in values.items()}
        values = {k: "no" if k == "mixed_precision" and v is False else v for k, v in values.items()}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected `name: value` lines, such as `lr: 0.001`")
    return from_dict(type(config), {**to_dict(config), **values}, where=str(path))


def to_dict(config: object) -> dict:
    """Plain values for JSON and YAML: paths as text."""
    values = dataclasses.asdict(config)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}


def from_dict(kind: type, values: dict, where: str = "config") -> object:
    """A config from plain values, each checked against its field's type; ValueError names `where` and the
    key."""
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(values.keys() - set(names)):
        raise ValueError(f"{where}: no setting {', '.join(unknown)}; there are: {', '.join(names)}")
    try:
        return kind(**_converted(kind, values))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
