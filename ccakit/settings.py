"""Settings: dataclasses from and to flags, YAML and JSON."""

from __future__ import annotations

import dataclasses
from pathlib import Path


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
    """A config from plain values, each checked against its field's type; ValueError names `where` and the key."""
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
