"""The command line: `ccakit demo | train | evaluate | embed | export | audit | random | params`. Heavy imports wait."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ccakit import command_config as commands
from ccakit import config as settings

COMMANDS = {
    "demo": settings.DemoConfig,
    "train": settings.TrainConfig,
    "evaluate": commands.EvaluateConfig,
    "embed": commands.EmbedConfig,
    "export": commands.ExportConfig,
    "benchmark": commands.BenchmarkConfig,
    "audit": commands.AuditConfig,
    "random": commands.RandomConfig,
    "params": commands.ParamsConfig,
}
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
        if not _first():
            sys.stdout = open(os.devnull, "w")  # one of several processes speaks for all
        config = parse(argv[0], argv[1:])
        result = globals()[f"run_{argv[0]}"](config)
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


def _first() -> bool:
    """Whether this is the only process, or the first of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def usage() -> str:
    """What `ccakit --help` prints."""
    lines = [f"  {name:<10}{kind.__doc__.splitlines()[0]}" for name, kind in COMMANDS.items()]
    presets = "demo: smoke, demo; train: smoke, demo, paper"
    return HELP.format(commands="\n".join(lines), presets=presets)


def parse(command: str, argv: list[str]):
    """A command's config: the preset, then the YAML file, then the flags."""
    import tyro

    argv = _data_flag(COMMANDS[command], argv) if command == "audit" else argv
    preset, argv = _take("--preset", argv)
    file, argv = _take("--config", argv)
    config = settings.from_preset(COMMANDS[command], preset)
    if file is not None:
        config = settings.from_yaml(config, Path(file))
    return tyro.cli(COMMANDS[command], args=argv, default=config, prog=f"ccakit {command}", use_underscores=False)


def _data_flag(kind: type, argv: list[str]) -> list[str]:
    """`argv` with --data before a word that is neither a flag nor a flag's value: the data set's folder."""
    switches = {"--help", "-h"} | {f"--{no}{name}" for name, field in kind.__dataclass_fields__.items()
                                   if field.type == "bool" for no in ("", "no-")}  # fmt: skip
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


def run_demo(config: settings.DemoConfig) -> dict:
    from ccakit.demo import demo

    return demo(config)


def run_train(config: settings.TrainConfig) -> dict:
    from ccakit.data.layout import read_dataset
    from ccakit.training import train

    dataset = read_dataset(config.data)
    _tell(dataset)
    _, facts = train(config, dataset)
    print(f"{config.model}: {facts['epochs']} epochs in {facts['train_seconds']:.0f} s; best weighted mAP on valid "
          f"{facts['best_valid_map_weighted']:.2f} (epoch {facts['best_epoch']}); model in {config.out}")  # fmt: skip
    if facts["unreadable"]:
        print(f"unreadable: {facts['unreadable']} training images, replaced; see {config.out / 'unreadable.json'}")
    return facts


def run_evaluate(config: commands.EvaluateConfig) -> dict:
    from ccakit.checkpoint import write_json
    from ccakit.evaluation import evaluate, table
    from ccakit.triplet_evaluation import triplet_table

    saved, dataset, inputs, _ = _opened(config)
    metrics = evaluate(saved, inputs, dataset[config.split], batch_size=config.batch_size, seed=config.seed)
    print(table(metrics, title := f"{saved.recipe['name']} on {dataset.name}, {config.split}"))
    if "triplet_accuracy" in metrics:
        print(triplet_table(metrics, title))
    if _first():
        write_json(config.run / f"metrics_{dataset.name}_{config.split}.json", metrics)
    return metrics


def run_embed(config: commands.EmbedConfig) -> dict:
    from ccakit.embedding import embed_images, save_embeddings

    saved, dataset, inputs, split = _opened(config)
    out = config.out or config.run / f"embeddings_{config.split}.safetensors"
    embeddings = embed_images(saved.model, inputs, batch_size=config.batch_size, progress="embedding")
    facts = {"shape": list(embeddings.shape), "conditions": list(saved.attributes.names), "file": str(out),
             "unreadable": inputs.report()}  # fmt: skip
    if _first():
        save_embeddings(out, embeddings, {**facts, "filenames": split.filenames})
    print(f"{embeddings.shape[0]} images x {embeddings.shape[1]} spaces x {embeddings.shape[2]} in {out}")
    if inputs.unreadable:
        print(f"unreadable: {len(inputs.unreadable)} images, whose embeddings are NaN; {out.with_suffix('.json')}")
    return facts


def run_export(config: commands.ExportConfig) -> dict:
    from ccakit.export import export_run

    facts = export_run(config)
    told = "".join(f"; {part}.onnx differs from torch by {value:.1e}" for part, value in facts["onnx"].items())
    print(f"{facts['system']} with {len(facts['conditions'])} conditions in {config.out}{told}")
    return facts


def _opened(config):
    """A run's model, its data set, and the inputs of the split that the config names."""
    from ccakit.checkpoint import load_model, read_json
    from ccakit.data.layout import read_dataset
    from ccakit.inputs import inputs_for

    saved = load_model(config.run)
    run = read_json(config.run / "config.json", "Give the data set with --data.") if config.data is None else {}
    if config.data is None and "data" not in run:
        raise ValueError(f"{config.run / 'config.json'} names no data set; give it with --data")
    dataset = read_dataset(config.data or run["data"], splits=(config.split,))
    _tell(dataset)
    if dataset.attributes.names != saved.attributes.names:
        raise ValueError(f"{config.run} was trained on {', '.join(saved.attributes.names)}; "
                         f"{dataset.root} has {', '.join(dataset.attributes.names)}")  # fmt: skip
    split = dataset[config.split]
    options = dict(cache=run.get("cache", False), max_unreadable=float(config.skip_unreadable))
    return saved, dataset, inputs_for(saved.model, split, saved.transform, **options), split


def _tell(dataset) -> None:
    for finding in dataset.findings:
        print(f"note: {finding}", file=sys.stderr)


def run_benchmark(config: commands.BenchmarkConfig) -> dict:
    from ccakit.benchmark import benchmark
    from ccakit.standings import text_table

    rows = benchmark(config)
    print(text_table(rows, color=sys.stdout.isatty()))
    return {"results": str(config.results_file(rows[0]["dataset"])), "rows": rows}


def run_audit(config: commands.AuditConfig) -> dict:
    if config.paper:
        from ccakit import protocol

        result = protocol.audit_paper()
        print(protocol.table(result))
        return result
    from ccakit import audit

    result = audit.audit(config.data, config.images, config.threads, progress=True)
    print(audit.table(result))
    if config.plot is not None:
        from ccakit.audit.plot import plot
        from ccakit.plots import save

        print(f"images per value: {save(plot(result), config.plot, dpi=90)}")
    return result


def run_random(config: commands.RandomConfig) -> dict:
    from ccakit.baseline import random_baseline
    from ccakit.data.layout import read_dataset

    dataset = read_dataset(config.data, splits=(config.split,))
    _tell(dataset)
    result, text = random_baseline(config, dataset)
    print(text)
    return result


def run_params(config: commands.ParamsConfig) -> dict:
    from ccakit.params import count_parts, list_systems

    if config.list:
        print(list_systems())
        return {}
    result, text = count_parts(config.trunk, config.conditions)
    print(text)
    return result


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
