"""The command line: find a command, read its settings, run it. Heavy imports wait until it runs."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentError, ArgumentParser
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from ccakit import settings
from ccakit.commands import speaks
from ccakit.errors import in_words
from ccakit.version import __version__

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "embed",
    "index",
    "search",
    "catalogue",
    "tag",
    "app",
    "export",
    "benchmark",
    "audit",
    "random",
    "params",
    "trunks",
)
AGAIN = {"demo": "; the same command begins the training again", "index": "; the same command goes on"}
USAGE = """ccakit: conditional cross attention for attribute-specific retrieval

usage: ccakit COMMAND [--preset NAME] [--config FILE.yaml] [flags]

{commands}

`ccakit COMMAND --help` lists its flags. With --json, a command ends with one machine-readable line.
Presets: demo: smoke, demo; train: smoke, demo, paper; benchmark: paper."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors of the input are one clear line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(
            stream, "reconfigure"
        ):  # a letter that the terminal's encoding lacks is printed as a number
            stream.reconfigure(errors="backslashreplace")
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, *flags = argv
    if name not in COMMANDS:
        print(f"ccakit: no command {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        if not speaks():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")
        config = parse(name, flags)
        result = command(name).run(config)
        if config.json:
            print(json.dumps(result))
        return int(getattr(config, "strict", False) and bool(result.get("breaks")))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"ccakit {name}: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"ccakit {name}: {str(stop) or 'stopped' + AGAIN.get(name, '')}", file=sys.stderr)
        return 130


def command(name: str):
    """Import the module of a command: its settings `Config`, and `run(config)`."""
    return import_module(f"ccakit.commands.{name}")


def usage() -> str:
    """Write the text of `ccakit --help`."""
    lines = [f"  {name:<10}{command(name).Config.__doc__.splitlines()[0]}" for name in COMMANDS]
    return USAGE.format(commands="\n".join(lines))


def parse(name: str, argv: list[str]):
    """Read a command's settings: the preset, then the YAML file, then the flags."""
    import tyro

    kind = command(name).Config
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset")
    parser.add_argument("--config", type=Path)
    try:
        given, argv = parser.parse_known_args(argv)
    except ArgumentError as error:
        raise ValueError(f"{error.argument_name} needs a value") from None
    config = settings.from_preset(kind, given.preset)
    if given.config is not None:
        config = settings.from_yaml(config, given.config.expanduser())
    several = [field.name for field in fields(kind) if isinstance(getattr(config, field.name), tuple)]
    for flag in (f"--{setting.replace('_', '-')}" for setting in several):
        if sum(word.split("=")[0].replace("_", "-") == flag for word in argv) > 1:
            raise ValueError(
                f"{flag} is given twice, and only the last would count; give all its values behind one"
            )
    options = dict(default=config, prog=f"ccakit {name}", use_underscores=False)
    if short := getattr(
        kind, "positional", None
    ):  # `ccakit audit DIR` is short for `ccakit audit --data DIR`
        config, words = tyro.cli(kind, args=argv, return_unknown_args=True, **options)
        if len(words) == 1 and not words[0].startswith("-"):
            values = {**settings.to_dict(config), short: words[0]}
            return settings.from_dict(kind, values, where=f"--{short}")
    return tyro.cli(kind, args=argv, **options)


def entry() -> None:
    """Run the console script.

    Waiting OpenMP threads sleep soon instead of spinning. Measured for a training step of the demo on 2
    threads: 0.05 s either way on a quiet machine; beside another program with 2 threads 0.10 s, and 0.67 s
    with spinning. The setting counts only if it is made before torch is first imported; the Makefile makes it
    for notebooks and tests.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(main())
