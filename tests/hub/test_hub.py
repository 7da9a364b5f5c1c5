"""save_pretrained, from_pretrained, push_to_hub: equal outputs, names kept, a model card whose examples
run."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_vit  # noqa: F401 - registers the trunk of 0.1's model
import torch
from huggingface_hub import ModelCard, hub_mixin
from PIL import Image
from places import FIXTURES

import ccakit
from ccakit.attributes import Attributes
from ccakit.cli import main, parse
from ccakit.data.drawn import write_garments
from ccakit.data.images import read_image
from ccakit.data.transform import ImageTransform
from ccakit.disk import write_json
from ccakit.errors import DataError
from ccakit.hub import model_card, pretrained
from ccakit.hub.pretrained import PretrainedModel
from ccakit.models.registry import create_model
from ccakit.models.saved import SavedModel, load_model, save_model
from ccakit.settings import to_dict
from ccakit.training.config import TrainConfig
from ccakit.training.trainer import train


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of two steps on drawn garments, evaluated."""
    root = tmp_path_factory.mktemp("hub")
    write_garments(root / "garments", 64, 20, 30, size=64, progress=False)
    config = TrainConfig(
        data=root / "garments",
        out=root / "run",
        image_size=64,
        lite_width=32,
        lite_heads=2,
        batch_size=16,
        budget="steps=2",
        cache=False,
    )
    train(config, quiet=True)
    assert main(["evaluate", "--run", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(scope="session")
def model(run):
    return ccakit.load(run)


@pytest.fixture(scope="session")
def files(run):
    return [run.parent / "garments" / "images/test" / f"{i:06d}.png" for i in range(3)]


def bare(name="csn", **options) -> PretrainedModel:
    recipe = dict(name=name, conditions=2, trunk="lite", image_size=32, **options)
    model = create_model(**recipe, pretrained=False)
    attributes = Attributes(("a_b", "c|d"), (("$x", "y"), ("z", "<w>")))
    return PretrainedModel(SavedModel(model, attributes, ImageTransform((32, 32)), recipe))


def readme_code(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)


# --- pictures and names in, embeddings out


def test_embeddings_are_those_of_the_network_for_every_kind_of_picture(model, files):
    saved = model.saved
    pixels = torch.stack([saved.transform(read_image(file)) for file in files])
    with torch.no_grad():
        tokens = saved.model.encode(pixels)
        spaces = saved.model.spaces(tokens)
    torch.testing.assert_close(model.spaces(files), spaces)
    torch.testing.assert_close(model.spaces(files, batch_size=2), spaces, atol=1e-5, rtol=0)
    same = dict(atol=1e-5, rtol=0)
    for picture in (files[0], str(files[0]), read_image(files[0]), Image.open(files[0]), pixels[0]):
        torch.testing.assert_close(model.spaces(picture), spaces[0], **same)
        torch.testing.assert_close(model.embed(picture, "neck design"), spaces[0, 7], **same)
    torch.testing.assert_close(model.spaces(pixels), spaces, **same)
    torch.testing.assert_close(model.embed([files[0], Image.open(files[1])], 2), spaces[:2, 2], **same)
    each = model.embed(files, ["neck_design", 0, "Coat-Length"])
    torch.testing.assert_close(each, spaces[[0, 1, 2], [7, 0, 2]], **same)
    assert model.embed(files[0], 3).shape == (32,) and not model.spaces(files).requires_grad
    torch.testing.assert_close(model.spaces(files).norm(dim=-1), torch.ones(3, 8))


def test_a_run_looks_at_a_photo_by_the_front_door(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    model = ccakit.load(str(run))
    spaces = model.spaces("photo.jpg")
    assert spaces.shape == (len(model.conditions), model.model.embed_dim) == (8, 32)
    for photo in (Path("photo.jpg"), Image.open("photo.jpg"), np.array(Image.open("photo.jpg"))):
        torch.testing.assert_close(model.spaces(photo), spaces, atol=1e-5, rtol=0)
    assert model.heatmap("photo.jpg", "neck design").shape == (4, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK", "L", "turned"])
def test_the_same_picture_in_any_form_gives_the_same_embedding(model, mode, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    pixels, exif = rng.integers(0, 256, (70, 90, 4), np.uint8), Image.Exif()
    exif[0x0112] = 6
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 65536, (70, 90)).astype(np.uint16)).save(file)
    elif mode == "turned":
        Image.fromarray(pixels).save(file, exif=exif)
    else:
        Image.fromarray(pixels).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode).save(file)
    spaces = model.spaces(file)
    rgb = read_image(file)
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    data = file.read_bytes()
    files = (data, bytearray(data), memoryview(data), io.BytesIO(data))
    with open(file, "rb") as opened:
        torch.testing.assert_close(model.spaces(opened), spaces, atol=1e-5, rtol=0)
    for picture in (*files, Image.open(file), Image.open(file).copy(), rgb, tensor):
        torch.testing.assert_close(model.spaces(picture), spaces, atol=1e-5, rtol=0)
    together = model.spaces([file, file.read_bytes(), Image.open(file), tensor])
    torch.testing.assert_close(together, spaces.expand(4, -1, -1), atol=1e-5, rtol=0)


def test_heatmaps_are_the_mean_of_the_heads(model, files):
    pixels = model.pixels(files[0])[None]
    with torch.no_grad():
        tokens = model.model.encode(pixels)
        heads = model.model.attention(tokens, torch.tensor([7]))
    heat = model.heatmap(files[0], "neck design")
    torch.testing.assert_close(heat, heads[0].mean(dim=0), atol=1e-6, rtol=0)
    assert heat.shape == (4, 4) and model.heatmap(files, 7).shape == (3, 4, 4)
    with pytest.raises(ValueError, match="csn does not attend: it has no heatmap"):
        bare().heatmap(np.zeros((40, 40, 3), np.uint8), 0)


@pytest.mark.parametrize("condition", ["sleeve", "", 8, -1, True])
def test_an_unknown_condition_lists_those_that_exist(model, files, condition):
    with pytest.raises(ValueError, match="no condition .*there are: 0: skirt_length, .*7: neck_design"):
        model.embed(files[0], condition)


def test_floats_are_taken_only_as_the_transform_gives_them(model, files):
    pixels = model.pixels(files[0])
    spaces, scaled = model.spaces(files[0]), 0.5 * pixels + 0.5  # mean and std are 0.5
    for floats in (pixels, pixels.double(), pixels.half()):
        torch.testing.assert_close(model.spaces(floats), spaces, atol=2e-3, rtol=0)
    for floats in (scaled, 255 * scaled, pixels * torch.nan, torch.zeros(3, 64, 64)):
        with pytest.raises(ValueError, match="is not a picture: .* what the model's transform gives"):
            model.spaces(floats)


def test_what_is_not_a_picture_is_refused(model, tmp_path):
    for picture in (
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((3, 64, 64), np.float32),
        torch.zeros(3, 32, 32),
        torch.zeros(64, 64, 3, dtype=torch.uint8),
        np.zeros((0, 8, 3), np.uint8),
        None,
    ):
        for given in (picture, [picture]):
            with pytest.raises(ValueError, match="is not a picture: give a file"):
                model.spaces(given)
    with pytest.raises(ValueError, match="no picture given"):
        model.spaces([])
    with pytest.raises(ValueError, match="2 conditions for 1 pictures"):
        model.embed([np.zeros((8, 8, 3), np.uint8)], [0, 1])
    with pytest.raises(DataError, match="nothing.png: is missing"):
        model.embed(tmp_path / "nothing.png", 0)


# --- there and back


def test_a_round_trip_gives_equal_outputs_names_values_and_transform(model, files, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    again = PretrainedModel.from_pretrained(tmp_path / "saved")
    again.save_pretrained(tmp_path / "twice")
    for copy in (again, PretrainedModel.from_pretrained(str(tmp_path / "twice"))):
        assert torch.equal(copy.spaces(files), model.spaces(files))
        assert copy.attributes == model.attributes and copy.transform == model.transform
        assert copy.saved.recipe == model.saved.recipe
    assert sorted(p.name for p in (tmp_path / "twice").iterdir()) == [
        "README.md",
        "config.json",
        "model.json",
        "model.safetensors",
    ]
    before, after = ((tmp_path / name / "README.md").read_text() for name in ("saved", "twice"))
    assert after == before.replace(str(tmp_path / "saved"), str(tmp_path / "twice")) and "mAP" in after


def test_a_runs_folder_is_not_overwritten(model, run):
    kept = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    with pytest.raises(DataError, match="is the folder of a training run"):
        model.save_pretrained(run)
    assert kept == {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_a_card_written_by_0_1_loads_its_new_folder(tmp_path):
    shutil.copytree(FIXTURES / "0.1/exported", tmp_path / "old")
    ccakit.load(tmp_path / "old").save_pretrained(tmp_path / "new")
    assert f'from_pretrained("{tmp_path / "new"}")' in (tmp_path / "new/README.md").read_text()


def test_a_card_that_a_person_wrote_stays(model, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


class Api:
    """The part of the hub that is used, without a network."""

    calls: list = []

    def __init__(self, token=None) -> None:
        self.token = token

    def create_repo(self, **options):
        Api.calls.append(("create_repo", options))
        return types.SimpleNamespace(repo_id=options["repo_id"])

    def upload_folder(self, *, folder_path, **options):
        files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        Api.calls.append(("upload_folder", options, files))
        return f"https://hub/{options['repo_id']}/commit/1"


def test_pushing_uploads_model_and_card_under_the_repositorys_name(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    Api.calls.clear()
    assert (
        model.push_to_hub("me/necks", private=True, commit_message="first") == "https://hub/me/necks/commit/1"
    )
    (_, created), (_, options, sent) = Api.calls
    assert created["repo_id"] == "me/necks" and created["private"] and options["commit_message"] == "first"
    assert set(sent) == {"model.safetensors", "model.json", "config.json", "README.md"}
    assert b'ccakit.load("me/necks")' in sent["README.md"]

    for name, data in sent.items():  # and from there back, through the mixin's download
        (tmp_path / name).write_bytes(data)
    asked = []

    def download(repo_id, **options):
        asked.append((repo_id, options))
        return str(tmp_path)

    monkeypatch.setattr(pretrained, "snapshot_download", download)
    again = PretrainedModel.from_pretrained("me/necks", revision="v1")
    assert torch.equal(again.spaces(files), model.spaces(files))
    assert asked[0][0] == "me/necks" and asked[0][1]["revision"] == "v1"
    assert set(asked[0][1]["allow_patterns"]) == set(sent)
    (tmp_path / "config.json").write_text("{")  # the hub's, which nothing reads
    assert PretrainedModel.from_pretrained("me/necks").conditions == model.conditions
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(DataError, match="model.json: is not readable JSON"):
        PretrainedModel.from_pretrained("me/necks")


@pytest.mark.parametrize("name", ["runs/nothing", "a/b/c", "../x"])
def test_a_name_that_is_neither_folder_nor_repository_is_one_clear_error(name, monkeypatch):
    def offline(*name, **options):
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "snapshot_download", offline)
    with pytest.raises(DataError, match="is not a folder here.*Give a folder with model.safetensors"):
        PretrainedModel.from_pretrained(name)


def test_a_local_folder_needs_no_network(model, run, monkeypatch):
    def refused(*args, **options):
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", refused)
    assert PretrainedModel.from_pretrained(run).conditions == model.conditions


# --- the card


def test_the_cards_examples_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--run", str(run), "--out", "necks", "--onnx"]) == 0
    by_torch, by_onnx = readme_code(tmp_path / "necks")
    space: dict = {}
    exec(by_torch, space)
    assert space["embedding"].shape == (32,) and space["embeddings"].shape == (2, 8, 32)
    assert space["heatmap"].shape == (4, 4) and float(space["similarity"]) == pytest.approx(1, abs=1e-5)
    exec(by_onnx, space)
    assert space["spaces"].shape == (2, 8, 32) and space["embedding"].shape == (2, 32)
    for comment in re.findall(r"\((\d+(?:, \d+)+|\d+,)\)", by_torch):
        assert tuple(map(int, comment.strip(",").split(", "))) in [(32,), (2, 8, 32), (256, 192, 3)]


def test_the_card_describes_the_run(run, model, tmp_path):
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    metrics = json.loads((run / "metrics_garments_test.json").read_text())
    for name, value in metrics["map_per_attribute"].items():
        low, high = metrics["intervals"]["map_per_attribute"][name]
        assert f"| {name} | {metrics['queries'][name]} | {value:.2f} | {low:.1f} - {high:.1f} |" in text
    low, high = metrics["intervals"]["map_weighted"]
    assert f"{metrics['map_weighted']:.2f} | {low:.1f} - {high:.1f}" in text
    assert "64 train, 20 valid, 30 test" in text and "Drawn by ccakit" in text and "**Photographs.**" in text
    for index, (name, values) in enumerate(zip(model.attributes.names, model.attributes.values)):
        assert f"| {index} | {name} | {', '.join(values)} |" in text
    assert "EfficientNet-Lite0" in text and "64 x 64" in text
    assert json.loads((run / "versions.json").read_text())["torch"] in text
    data = ModelCard(text).data
    assert data.library_name == "ccakit" and data.license == "apache-2.0" and "cca-type2" in data.tags
    assert data.eval_results[0].metric_value == round(metrics["map_weighted"], 2)
    assert data.eval_results[0].dataset_split == "test"


def test_the_command_in_the_card_is_that_of_the_run(run, model, tmp_path):
    model.save_pretrained(tmp_path)
    line = re.search(r"```bash\n(ccakit train .*)\n```", (tmp_path / "README.md").read_text())[1]
    assert str(run.parent) not in line  # nobody's folders in public
    config, wanted = parse("train", shlex.split(line)[2:]), json.loads((run / "config.json").read_text())
    config = json.loads(json.dumps(to_dict(config)))
    assert not config.pop("check")  # no setting of training
    assert {**config, "out": ""} == {**wanted, "out": "", "data": "garments"}


def test_every_setting_survives_the_command_in_the_card():
    config = TrainConfig(
        model="csn",
        pretrained=False,
        weights=Path("w.pth"),
        balance=(2, 3, 4),
        cache=False,
        flip=True,
        without=("mask_norm",),
        freeze="2",
        residual=False,
        lr=3e-4,
    )
    plain = json.loads(json.dumps(to_dict(config)))
    again = parse("train", shlex.split(model_card.train_command(plain))[2:])
    assert json.loads(json.dumps(to_dict(again))) == {**plain, "check": False}


def test_a_card_without_a_run_says_what_is_not_known(tmp_path):
    bare().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "Not measured" in text and "license: unknown" in text and "heatmap" not in text
    assert "| 0 | a_b | &#36;x, y |" in text  # Markdown shows names as they are
    assert "| 1 | c\\|d | z, &lt;w> |" in text and "not known here" in text
    exec(readme_code(tmp_path)[0], space := {})
    assert space["embeddings"].shape == (2, 2, 128)


@pytest.mark.parametrize(
    "licence,metadata",
    [
        ("MIT", "license: mit"),
        ("cc-by-nc-4.0", "license: cc-by-nc-4.0"),
        ("ask me first", "license: other\nlicense_name: ask me first"),
    ],
)
def test_a_given_licence_is_in_the_card(licence, metadata):
    text = model_card.model_card(bare().saved, licence=licence).content
    assert metadata in text and f"This model: {licence}" in text


def test_the_card_gives_the_terms_of_data_and_weights(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    data = tmp_path / "garments"
    shutil.copytree(run.parent / "garments", data)
    meta = json.loads((data / "meta.json").read_text())
    meta["garments"]["ABOUT"] = {"licence": "academic use only", "source": "somewhere"}
    write_json(data / "meta.json", meta)
    config = {
        **json.loads((folder / "config.json").read_text()),
        "data": str(data),
        "weights": "/home/me/w.pth",
    }
    write_json(folder / "config.json", config)
    text = PretrainedModel.from_pretrained(folder).generate_model_card().content
    assert "academic use only" in text and "license: unknown" in text and "Source: somewhere" in text
    assert "a weights file, w.pth" in text and "/home/me" not in text and "**Photographs.**" not in text
    shutil.rmtree(data)
    text = PretrainedModel.from_pretrained(folder).generate_model_card().content
    assert "Data it was trained on: not known here" in text
    (folder / "train.json").write_text("{")
    with pytest.raises(DataError, match="train.json: is not readable JSON"):
        PretrainedModel.from_pretrained(folder).generate_model_card()


def test_a_saved_model_is_a_ccakit_model_too(model, tmp_path):
    """`load_model` and the commands read what `save_pretrained` wrote, and the other way round."""
    model.save_pretrained(tmp_path / "a")
    saved = load_model(tmp_path / "a")
    save_model(tmp_path / "b", saved)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, two = (PretrainedModel.from_pretrained(tmp_path / n).model(x) for n in "ab")
    assert torch.equal(one, two) and one.shape == (2, 8, 32)
    data = model.folder.parent / "garments"
    assert main(["evaluate", "--run", str(tmp_path / "a"), "--data", str(data)]) == 0
