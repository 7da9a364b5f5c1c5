"""The model card of a saved model, made from what its run's folder tells: README.md for people and the hub."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData

from ccakit.data.meta import read_meta
from ccakit.disk import read_json
from ccakit.errors import DataError
from ccakit.models.base import ConditionalModel
from ccakit.models.registry import model_info
from ccakit.models.saved import SavedModel
from ccakit.models.trunks.lite import LITE, WEIGHTS_PACKAGE
from ccakit.settings import to_dict
from ccakit.training.config import TrainConfig

REMEDY = "Mend or delete it; the model card is made without what is not there."
PAPER = "Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in Only a SINGLE Network"
UNKNOWN = "not known here"
FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


@dataclasses.dataclass
class RunFacts:
    """What a run's folder tells; empty where it does not.

    config: the settings of `ccakit train`; data: name, counts and digest; about: the data's ABOUT; metrics: by
    (data set, split).
    """

    config: dict
    data: dict
    about: dict
    train: dict
    versions: dict
    metrics: dict[tuple[str, str], dict]

    @property
    def drawn(self) -> bool:
        """Whether the data are drawn, not photographed."""
        return "drawn" in self.about


def run_facts(folder: Path | None) -> RunFacts:
    """Read a run's folder; DataError for a file of it that is no JSON."""
    if folder is None:
        return RunFacts({}, {}, {}, {}, {}, {})
    read = {
        name: read_json(folder / f"{name}.json", REMEDY) if (folder / f"{name}.json").is_file() else {}
        for name in ("config", "data", "train", "versions")
    }
    name, metrics = read["data"].get("name", "data"), {}
    for file in sorted(folder.glob("metrics*.json")):
        words = (
            file.stem.split("_", 1)[1].rsplit("_", 1) if "_" in file.stem else (name, "test")
        )  # the demo's
        values = read_json(file, REMEDY)
        if len(words) == 2 and "map_weighted" in values:
            metrics.setdefault(tuple(words), values)
    config = read["config"] if "budget" in read["config"] else {}
    return RunFacts(config, read["data"], _about(config), read["train"], read["versions"], metrics)


def _about(config: dict) -> dict:
    try:
        return read_meta(Path(config["data"])).about
    except (KeyError, TypeError, DataError):  # the data are not here any more
        return {}


def train_command(config: dict) -> str:
    """The `ccakit train` that a run's config.json stands for: what differs from the defaults, absolute paths cut to
    their last part.

    >>> train_command({"data": "data/mine", "model": "csn", "pretrained": False, "without": ["mask_norm"]})
    'ccakit train --data data/mine --model csn --no-pretrained --without mask_norm'
    """
    words, usual = ["ccakit", "train"], json.loads(json.dumps(to_dict(TrainConfig())))
    for name, value in config.items():
        if name not in FIELDS or name in ("resume", "json", "out") or value is None:
            continue
        if value == usual[name] and name != "data":
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{flag}", *(str(_no_home(v)) if name in ("data", "weights") else str(v) for v in values)]
    return shlex.join(words)


def _no_home(path: str) -> Path:
    """A path without the folders above, which are nobody's business, where it is absolute."""
    path = Path(path)
    return Path(path.name) if path.is_absolute() else path


def trunk_weights(saved: SavedModel, config: dict) -> tuple[str, str | None]:
    """What the trunk started from, in words, and its licence where it is known."""
    trunk = saved.recipe.get("trunk", LITE)
    if config.get("weights"):
        return f"a weights file, {Path(config['weights']).name}; its licence is {UNKNOWN}", None
    if not config:
        return f"{UNKNOWN}, as the model was saved without its run", None
    if not config.get("pretrained", True):
        return "random values", "apache-2.0"
    if trunk == LITE:
        return (
            f"EfficientNet-Lite0 trained on ImageNet, from the package {WEIGHTS_PACKAGE} (Apache-2.0); ImageNet's "
            "pictures have terms of their own"
        ), "apache-2.0"
    given = timm.get_pretrained_cfg(trunk)
    licence, source = getattr(given, "license", None), getattr(given, "hf_hub_id", None) or "timm"
    return f"{trunk}, from {source}; licence: {licence or UNKNOWN}", licence


def model_card(
    saved: SavedModel,
    folder: Path | None = None,
    *,
    source: str = ".",
    licence: str | None = None,
    onnx: bool = False,
) -> str:
    """The card's text: YAML for the hub, then use, conditions, data, results, training, limits, licence.

    folder: the run's. source: what the examples load. licence: of the saved model, if you know better than this.
    onnx: whether ONNX files lie beside it.
    """
    run = run_facts(folder)
    start, start_licence = trunk_weights(saved, run.config)
    if licence is None and run.drawn:
        licence = start_licence
    title = f"{model_info(saved.recipe['name']).title} on {run.data.get('name', 'a data set')}"
    sections = [
        f"# {title}: one embedding space per attribute\n\n{_intro(saved)}",
        "## Use\n\n" + _usage(saved, source) + (_onnx_usage(saved, source) if onnx else ""),
        "## Conditions\n\n" + _conditions(saved),
        "## Pictures\n\n" + _pictures(saved),
        "## Data\n\n" + _data(run),
        "## Results\n\n" + _results(run),
        "## Training\n\n" + _training(saved, run, start),
        "## What it is not for\n\n" + _limits(run),
        "## Licence\n\n" + _licence(run, start, licence),
        f"## Source\n\nMade with ccakit {run.versions.get('ccakit', '')}, an independent implementation of "
        f"*{PAPER}* (Song et al., ICCV 2023); not by its authors.",
    ]
    return f"---\n{_metadata(saved, run, licence, title)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(saved: SavedModel, run: RunFacts, licence: str | None, title: str) -> str:
    known = licence is not None and re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", licence.lower())
    terms: dict[str, Any] = {"license": licence.lower() if known else "other" if licence else "unknown"}
    if licence and not known:
        terms["license_name"] = licence
    results = [
        EvalResult(
            task_type="image-feature-extraction",
            task_name="attribute-specific retrieval",
            dataset_type=data,
            dataset_name=data,
            dataset_split=split,
            metric_type="mean_average_precision",
            metric_name="mAP, weighted by query, percent",
            metric_value=round(values["map_weighted"], 2),
        )
        for (data, split), values in run.metrics.items()
    ]
    tags = [
        "attribute-specific-retrieval",
        "image-retrieval",
        "embeddings",
        "conditional-similarity",
        saved.recipe["name"],
    ]
    named = {"model_name": title, "eval_results": results} if results else {}
    return ModelCardData(
        library_name="ccakit", pipeline_tag="image-feature-extraction", tags=tags, **terms, **named
    ).to_yaml()


def _intro(saved: SavedModel) -> str:
    info, count = model_info(saved.recipe["name"]), len(saved.attributes)
    return (
        f"A picture is encoded once and then looked at under any of {count} conditions, which are attributes; each "
        f"gives an embedding of its own, {saved.model.embed_dim} numbers of length 1. Near in the space of an "
        f"attribute means: alike in that attribute. System: `{info.name}` ({info.title}; {info.source}), on the "
        f"trunk `{saved.recipe.get('trunk', LITE)}`."
    )


def _usage(saved: SavedModel, source: str) -> str:
    name, count, width = json.dumps(saved.attributes.title(0)), len(saved.attributes), saved.model.embed_dim
    attends = type(saved.model).attention is not ConditionalModel.attention
    heat = f"heatmap = model.heatmap(image, {name})       # where it looks\n" * attends
    return f"""\
```python
import numpy as np
from ccakit.hub import PretrainedModel

model = PretrainedModel.from_pretrained({json.dumps(source)})
image = np.zeros((256, 192, 3), np.uint8)  # or "shirt.jpg", or a PIL image; one, or a list of them
embedding = model.embed(image, {name})     # ({width},)
embeddings = model.spaces([image, image])  # (2, {count}, {width}): all conditions
similarity = embedding @ embeddings[1, model.condition({name})]  # cosine, -1 to 1
{heat}```"""


def _onnx_usage(saved: SavedModel, source: str) -> str:
    name, (height, width) = json.dumps(saved.attributes.names[0]), saved.transform.size
    return f"""

Without PyTorch, by ONNX: `encode.onnx` once a picture, then `spaces.onnx` or `embed.onnx`; any batch size.

```python
import json
from pathlib import Path

import numpy as np
import onnxruntime

folder = Path({json.dumps(source)})
facts = json.loads((folder / "onnx.json").read_text())  # conditions, values and how to transform a picture
parts = {{name: onnxruntime.InferenceSession(folder / f"{{name}}.onnx") for name in facts["parts"]}}
images = np.zeros((2, 3, {height}, {width}), np.float32)
tokens = parts["encode"].run(None, {{"images": images}})[0]
spaces = parts["spaces"].run(None, {{"tokens": tokens}})[0]
condition = np.full(2, facts["conditions"].index({name}))
embedding = parts["embed"].run(None, {{"tokens": tokens, "condition": condition}})[0]
```"""


def _conditions(saved: SavedModel) -> str:
    cell = lambda text: text.replace("|", "\\|")  # noqa: E731
    rows = [
        f"| {index} | {cell(name)} | {cell(', '.join(values))} |"
        for index, (name, values) in enumerate(zip(saved.attributes.names, saved.attributes.values))
    ]
    return "\n".join(["| condition | attribute | values |", "|---|---|---|", *rows])


def _pictures(saved: SavedModel) -> str:
    t = saved.transform
    return (
        f"RGB; shorter side to size / {t.crop_pct:g} ({t.interpolation}, antialiased), the centre of {t.size[0]} x "
        f"{t.size[1]} pixels (height x width), then minus {tuple(t.mean)}, divided by {tuple(t.std)}, of "
        "values from 0 to 1. `PretrainedModel` does it."
    )


def _data(run: RunFacts) -> str:
    if not run.data:
        return "Not known: the model was saved without its run."
    counts = ", ".join(f"{count:,} {name}" for name, count in run.data.get("images", {}).items())
    told = [
        f"{run.data['name']}: {counts} images (digest of lists and labels: {run.data.get('digest', UNKNOWN)})."
    ]
    if run.drawn:
        told.append("**Drawn by ccakit, not photographed.**")
    told += [f"{key.capitalize()}: {run.about[key]}." for key in ("source", "notes") if run.about.get(key)]
    return " ".join(told)


def _results(run: RunFacts) -> str:
    if not run.metrics:
        return "Not measured. `ccakit evaluate --run RUN` measures them; a card made after it has them."
    return "\n\n".join(_table(data, split, metrics) for (data, split), metrics in run.metrics.items())


def _table(data: str, split: str, metrics: dict) -> str:
    within, chance = metrics["intervals"], metrics["random_map_per_attribute"]
    rows = [
        (name, metrics["queries"][name], value, within["map_per_attribute"][name], chance[name])
        for name, value in metrics["map_per_attribute"].items()
    ]
    total = sum(metrics["queries"].values())
    rows += [
        (f"**{title}**", total, metrics[f"map_{key}"], within[f"map_{key}"], metrics[f"random_map_{key}"])
        for key, title in (("weighted", "weighted by query"), ("macro", "macro"))
    ]
    lines = [
        f"{data}, {split}: mean average precision of ranking all candidates of an attribute, in percent, with 95% "
        "bootstrap intervals over queries; random: what a random ranking scores.\n",
        "| attribute | queries | mAP | 95% interval | random |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {count} | {value:.2f} | {low:.1f} - {high:.1f} | {random:.2f} |"
        for name, count, value, (low, high), random in rows
    ]
    if "pointing_game" in metrics:
        hits, chance, other = (100 * metrics[f"pointing_{key}"] for key in ("game", "chance", "other"))
        lines.append(
            f"\nHeatmaps: the highest point lies in the attribute's region in {hits:.1f}% of cases; chance "
            f"{chance:.1f}%, another condition's map {other:.1f}%."
        )
    if "triplet_accuracy" in metrics:
        low, high = metrics["triplet_intervals"]["triplet_accuracy"]
        lines.append(
            f"\nTriplet accuracy: {metrics['triplet_accuracy']:.2f}% ({low:.1f} - {high:.1f}); chance 50%."
        )
    return "\n".join(lines)


def _training(saved: SavedModel, run: RunFacts, start: str) -> str:
    told = [f"Trunk weights to start from: {start}."]
    if run.config:
        told.append(
            "Every setting that is not the default, absolute paths shortened:\n\n```bash\n"
            f"{train_command(run.config)}\n```"
        )
    if run.train:
        fact = run.train.get
        told.append(
            f"{fact('epochs')} epochs, {fact('steps')} steps, {fact('train_seconds')} s; kept is epoch "
            f"{fact('best_epoch')}, by weighted mAP on valid ({fact('best_valid_map_weighted')})."
        )
    if run.versions:
        told.append("With " + ", ".join(f"{name} {value}" for name, value in run.versions.items()) + ".")
    told.append(
        f"The model is `create_model(**{json.dumps(saved.recipe)})`, with JSON's null, true and false."
    )
    return "\n\n".join(told)


def _limits(run: RunFacts) -> str:
    told = []
    if run.drawn:
        told.append(
            "**Photographs.** It has seen drawn garments only. It teaches and tests; its numbers stand for "
            "none of the paper's."
        )
    told += [
        "Pictures of another kind than its data: there, nothing is known of how good it is.",
        "Attributes that are not listed; it cannot be asked for others.",
        "Comparing similarities across conditions, or with a threshold from elsewhere: each space has its scale.",
        "Recognising, grouping or judging people, or any decision about them.",
        "Proof of the paper's tables: the authors' weights and images are not in it.",
    ]
    return "\n".join(f"- {each}" for each in told)


def _licence(run: RunFacts, start: str, licence: str | None) -> str:
    data = "drawn by ccakit (Apache-2.0)" if run.drawn else run.about.get("licence", UNKNOWN)
    return (
        f"- This model: {licence or 'not stated; what the data and the weights it started from allow'}\n"
        f"- Data it was trained on: {data}\n- Weights it started from: {start}\n"
        "- ccakit, the code: Apache-2.0"
    )
