"""Settings: dataclasses from and to flags, YAML and JSON."""

from __future__ import annotations

import dataclasses
import operator
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
LIMITS = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "above"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "below"),
}


def check_limits(config: object) -> None:
    """Check every field against the limits in its annotation; ValueError names the field and the limit.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     lr: Annotated[float, Gt(0)] = 0.0
    >>> check_limits(Config())
    Traceback (most recent call last):
    ValueError: lr=0.0: must be above 0
    """
    for name, kind in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        for limit in _limits_in(kind):
            attribute, holds, words = LIMITS[type(limit)]
            bound = getattr(limit, attribute)
            for each in values:
                if each is not None and not holds(each, bound):
                    raise ValueError(f"{name}={each}: must be {words} {bound}")


def _limits_in(kind: object) -> list:
    """List the limits of an annotation, and of what stands within its brackets."""
    inner = [limit for each in get_args(kind) for limit in _limits_in(each)]
    return [limit for limit in getattr(kind, "__metadata__", ()) if type(limit) in LIMITS] + inner


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
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
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
    from pydantic import TypeAdapter, ValidationError

    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(kind)})
    if unknown:
        known = ", ".join(f.name for f in dataclasses.fields(kind))
        raise ValueError(f"{where}: no setting {', '.join(unknown)}; there are: {known}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{where}: {'.'.join(map(str, first['loc'])) or 'settings'}: {first['msg']}"
        ) from error
