"""The model card of a saved model: README.md for people and the hub. The text is in `model_card.md.jinja`."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ccakit.data.layout import read_dataset
from ccakit.disk import read_json
from ccakit.errors import DataError
from ccakit.evaluation.provenance import changes_since, remarks
from ccakit.evaluation.run import find_data
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import model_info
from ccakit.models.saved import SavedModel
from ccakit.models.trunks.lite import LITE, WEIGHTS_PACKAGE
from ccakit.models.trunks.weight_files import HUB, in_weights_folder
from ccakit.settings import to_dict
from ccakit.text_table import in_markdown
from ccakit.training.config import EARLIER, TrainConfig

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
REMEDY = "Repair or delete it; the model card is made without the files that are missing."
UNKNOWN = "not known here"
TAGS = ["attribute-specific-retrieval", "image-retrieval", "embeddings", "conditional-similarity"]


@dataclass
class RunFacts:
    """The facts that the files of a run's folder give; a fact is empty where its file is missing.

    config: the settings of `ccakit train`. data: name, counts and digest. weights: the files that the trunk
    started from. about: ABOUT of the data's meta.json, if the data are still the same. metrics: by (data set,
    split), of the run's data alone. remarks: what is to be known of them, in words.
    """

    config: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    train: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)
    metrics: dict[tuple[str, str], dict] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def drawn(self) -> bool:
        """Whether the data are drawn, not photographed."""
        return "drawn" in self.about


def read_run_facts(folder: Path | None) -> RunFacts:
    """Read the facts of a run's folder; DataError for a file that is not JSON."""
    if folder is None:
        return RunFacts()
    files = [folder / f"{name}.json" for name in ("config", "data", "train", "versions", "weights")]
    run = RunFacts(*(read_json(file, REMEDY) if file.is_file() else {} for file in files))
    if "budget" not in run.config:  # the config.json of an exported model, not of a run
        run.config = {}
    with suppress(KeyError, TypeError, DataError):  # no run, or its data are no longer there
        run.about = _about(run, folder / "config.json")
    for file in sorted(folder.glob("metrics*.json")):
        metrics = read_json(file, REMEDY)
        if "map_weighted" in metrics:
            _add_metrics(run, file, metrics)
    return run


def _about(run: RunFacts, config: Path) -> dict:
    """Read ABOUT of the run's data; empty, with a remark, where other data are in their place now."""
    dataset = read_dataset(find_data(config, run.config["data"]))
    if run.data and (differ := changes_since(run.data, dataset)):
        run.remarks.append(f"the run's data have changed since it was trained: {'; '.join(differ)}")
        return {}
    return dataset.about


def _add_metrics(run: RunFacts, file: Path, metrics: dict) -> None:
    """Add the metrics of a file, if they are of the run's data; else a remark."""
    words = file.name.removesuffix(".json").removeprefix("metrics").removeprefix("_").rsplit("_", 1)
    own = run.data.get("name", "data")
    name, split = words if len(words) == 2 else (own, "test")  # the demo's
    found = {"name": name, "split": split, "same": None, "trained_on": None, **metrics.get("data", {})}
    if found["same"] is False or (found["same"] is None and run.data and found["name"] != own):
        run.remarks.append(f"{file.name} is of other data than the run's, and not shown")
        return
    run.metrics.setdefault((found["name"], found["split"]), metrics)
    run.remarks += [f"{file.name}: {text}" for text in remarks(found)]


def train_command(config: dict) -> str:
    """Give the `ccakit train` command of a run's config.json: all that differs from the defaults.

    Of an absolute path only the last part is left: the folders above it are private.

    >>> train_command({"data": "data/mine", "model": "csn", "pretrained": False, "without": ["mask_norm"]})
    'ccakit train --data data/mine --model csn --no-pretrained --without mask_norm'
    """
    words, config = ["ccakit", "train"], {**EARLIER, **config}
    defaults = json.loads(json.dumps(to_dict(TrainConfig())))
    for name, default in defaults.items():
        value = config.get(name)
        if name in ("resume", "json", "out") or value is None or (value == default and name != "data"):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        if name in ("data", "weights") and Path(value).is_absolute():
            value = Path(value).name
        values = value if isinstance(value, list) else [value]
        words += [f"--{flag}", *map(str, values)]
    return shlex.join(words)


def trunk_weights(saved: SavedModel, run: RunFacts) -> tuple[str, str | None]:
    """Say in words what the trunk started from, and give the licence of that where it is known."""
    trunk, config, files = saved.recipe.get("trunk", LITE), run.config, run.weights.get("files", [])
    given = config.get("weights")
    if given and Path(given) != HUB:
        own = [each for each in files if Path(each["file"]).name == Path(given).name]
        return _describe_file(*(own or [{"file": given}])), None
    if found := [each for each in files if in_weights_folder(each["file"])]:
        return "; ".join(map(_describe_file, found)), None
    if not config:
        return f"{UNKNOWN}, as the model was saved without its run", None
    if not config.get("pretrained", True):
        return "random values", "apache-2.0"
    if trunk == LITE:
        source = f"EfficientNet-Lite0 trained on ImageNet, from the package {WEIGHTS_PACKAGE} (Apache-2.0)"
        return f"{source}; ImageNet's pictures have terms of their own", "apache-2.0"
    settings = timm.get_pretrained_cfg(trunk)
    licence, source = getattr(settings, "license", None), getattr(settings, "hf_hub_id", None) or "timm"
    return f"{trunk}, from {source}; licence: {licence or UNKNOWN}", licence


def _describe_file(weights: dict) -> str:
    """Say what weights.json says of a file; the folders above it are private."""
    checksum = f" (SHA-256 {weights['sha256']})" if "sha256" in weights else ""
    said = [in_markdown(weights[key]) for key in ("source", "notes") if key in weights]
    said.append(f"its licence is {in_markdown(weights.get('licence', UNKNOWN))}")
    return "; ".join([f"a weights file, {Path(weights['file']).name}{checksum}", *said])


def model_card(
    saved: SavedModel,
    folder: Path | None = None,
    *,
    source: str = ".",
    licence: str | None = None,
    onnx: bool = False,
) -> ModelCard:
    """Make the card: YAML for the hub, then use, conditions, data, results, training, limits, licence.

    folder: that of the run. source: the name that the examples load. licence: that of the saved model, where
    you know better than its run. onnx: whether ONNX files lie beside it.
    """
    run, info = read_run_facts(folder), model_info(saved.recipe["name"])
    start, start_licence = trunk_weights(saved, run)
    if licence is None and run.drawn:
        licence = start_licence
    title = f"{info.title} on {run.data.get('name', 'a data set')}"
    return ModelCard.from_template(
        _metadata(run, licence, title, info.name),
        template_str=TEMPLATE.read_text("utf-8"),
        saved=saved,
        run=run,
        info=info,
        title=title,
        trunk=saved.recipe.get("trunk", LITE),
        read_block=saved.recipe.get("read_block"),
        attends=type(saved.model).attention_rows is not ConditionalModel.attention_rows,
        source=source,
        licence=licence,
        start=start,
        train_command=train_command(run.config),
        onnx=onnx,
        quoted=json.dumps,
        literal=in_markdown,
        UNKNOWN=UNKNOWN,
    )


def _metadata(run: RunFacts, licence: str | None, title: str, system: str) -> ModelCardData:
    """Give the hub's YAML: licence, tags, and a result for each data set and split that was evaluated."""
    terms = {"license": licence.lower() if licence else "unknown"}
    if not re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", terms["license"]):  # not one of the hub's names
        terms = {"license": "other", "license_name": licence}
    if run.metrics:
        terms["model_name"] = title
        terms["eval_results"] = [
            EvalResult(
                task_type="image-feature-extraction",
                task_name="attribute-specific retrieval",
                dataset_type=data,
                dataset_name=data,
                dataset_split=split,
                metric_type="mean_average_precision",
                metric_name="mAP, weighted by query, percent",
                metric_value=round(metrics["map_weighted"], 2),
            )
            for (data, split), metrics in run.metrics.items()
        ]
    return ModelCardData(
        library_name="ccakit", pipeline_tag="image-feature-extraction", tags=[*TAGS, system], **terms
    )
