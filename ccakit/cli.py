"""The command line: `ccakit demo | train | evaluate | embed | export | audit | random | params`. Heavy imports wait."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path

from ccakit import settings

COMMANDS = ("demo", "train", "evaluate", "embed", "export", "benchmark", "audit", "random", "params")
HELP = """ccakit: conditional cross attention for attribute-specific retrieval

usage: ccakit COMMAND [--preset NAME] [--config FILE.yaml] [flags]

{commands}

`ccakit COMMAND --help` lists a command's flags; every command ends with one machine-readable line under --json.
Presets: {presets}."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code. One clear line on stderr where something is wrong with the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        import ccakit

        print(ccakit.__version__)
        return 0
    if argv[0] not in COMMANDS:
        print(f"ccakit: no command {argv[0]!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        if os.environ.get("RANK", "0") != "0":
            sys.stdout = open(os.devnull, "w")  # one of several processes speaks for all
        config = parse(argv[0], argv[1:])
        result = command(argv[0]).run(config)
        if config.json:
            print(json.dumps(result))
        return int(getattr(config, "strict", False) and bool(result.get("breaks")))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"ccakit {argv[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        again = "; the same command begins the training again" if argv[0] == "demo" else ""
        print(f"ccakit {argv[0]}: {str(stop) or 'stopped' + again}", file=sys.stderr)
        return 130


def command(name: str):
    """The module of a command: its settings `Config`, and `run(config)`."""
    return import_module(f"ccakit.commands.{name}")


def usage() -> str:
    """What `ccakit --help` prints."""
    lines = [f"  {name:<10}{command(name).Config.__doc__.splitlines()[0]}" for name in COMMANDS]
    presets = "demo: smoke, demo; train: smoke, demo, paper"
    return HELP.format(commands="\n".join(lines), presets=presets)


def parse(name: str, argv: list[str]):
    """A command's config: the preset, then the YAML file, then the flags."""
    import tyro

    kind = command(name).Config
    argv = _data_flag(kind, argv) if name == "audit" else argv
    preset, argv = _take("--preset", argv)
    file, argv = _take("--config", argv)
    config = settings.from_preset(kind, preset)
    if file is not None:
        config = settings.from_yaml(config, Path(file))
    return tyro.cli(kind, args=argv, default=config, prog=f"ccakit {name}", use_underscores=False)


def _data_flag(kind: type, argv: list[str]) -> list[str]:
    """`argv` with --data before a word that is neither a flag nor a flag's value: the data set's folder."""
    switches = {"--help", "-h"} | {
        f"--{no}{name}"
        for name, field in kind.__dataclass_fields__.items()
        if field.type == "bool"
        for no in ("", "no-")
    }
    for place, word in enumerate(argv):
        value = place and argv[place - 1].startswith("-") and argv[place - 1] not in switches
        if not word.startswith("-") and not (value and "=" not in argv[place - 1]):
            return [*argv[:place], "--data", *argv[place:]]
    return argv


def _take(flag: str, argv: list[str]) -> tuple[str | None, list[str]]:
    """The value of `flag` in `argv`, and `argv` without it."""
    for place, word in enumerate(argv):
        if word == flag:
            if place + 1 == len(argv):
                raise ValueError(f"{flag} needs a value")
            return argv[place + 1], argv[:place] + argv[place + 2 :]
        if word.startswith(flag + "="):
            return word[len(flag) + 1 :], argv[:place] + argv[place + 1 :]
    return None, argv


def entry() -> None:
    """Run the console script.

    Waiting OpenMP threads go to sleep soon, in place of spinning. Measured for a training step of the demo on 2 threads:
    0.05 s either way on a quiet machine; beside another program with 2 threads 0.10 s so, and 0.67 s with spinning. It
    counts only if it is set before torch is first imported; the Makefile sets it for notebooks and tests.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(main())


if __name__ == "__main__":
    entry()
