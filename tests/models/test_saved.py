"""Loading: a file that is cut, changed or another model's is one clear error, and a pickle is never run."""

from __future__ import annotations

import ast
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT
from safetensors.torch import save_file
from saved_models import (
    ATTRIBUTES,
    LITE,
    change_json,
    change_tensors,
    load_state,
    saved_model,
    two_checkpoints,
)

from ccakit.cli import main
from ccakit.data.inputs import FeatureInputs, ImageInputs, keep_features
from ccakit.data.split import Split
from ccakit.errors import DataError
from ccakit.models.registry import create_model
from ccakit.models.saved import load_model, save_model
from ccakit.models.trunks.frozen import TrunkError


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "model", saved_model())
    return tmp_path / "model"


@pytest.fixture
def checkpoint(tmp_path):
    return two_checkpoints(tmp_path)


class Marker:
    """A pickle that, loaded, writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def pickles(marker: Path, folder: Path) -> dict[str, bytes]:
    """Malicious files: a bare pickle, torch.save's zip, its legacy form, and numpy's object array."""
    made = {"bare": pickle.dumps(Marker(marker), protocol=2)}
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save({"weight": Marker(marker)}, folder / name, _use_new_zipfile_serialization=zipped)
        made[name] = (folder / name).read_bytes()
    np.save(folder / "x.npy", np.array([Marker(marker)], dtype=object), allow_pickle=True)
    return {**made, "npy": (folder / "x.npy").read_bytes()}


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "was-run"


@pytest.fixture
def evil(marker, tmp_path):
    files = pickles(marker, tmp_path)
    pickle.loads(files["bare"])  # it bites
    assert marker.exists()
    marker.unlink()
    return files


# --- pickles


@pytest.mark.parametrize("kind", ["bare", "zip", "legacy", "npy"])
def test_a_pickle_named_as_a_checkpoint_is_refused_and_not_run(
    kind, evil, marker, folder, checkpoint, tmp_path
):
    (folder / "model.safetensors").write_bytes(evil[kind])
    with pytest.raises(DataError, match="model.safetensors: is not a whole safetensors file"):
        load_model(folder)
    assert main(["evaluate", "--run", str(folder), "--data", str(tmp_path)]) == 1
    model = saved_model().model
    for name in ("optimizer", "model"):
        kept = (checkpoint / f"{name}.safetensors").read_bytes()
        (checkpoint / f"{name}.safetensors").write_bytes(evil[kind])
        with pytest.raises(DataError, match=f"{name}.safetensors: is not a whole safetensors file"):
            load_state(checkpoint, model, torch.optim.AdamW(model.parameters()))
        (checkpoint / f"{name}.safetensors").write_bytes(kept)
    (folder / "model.json").write_bytes(evil[kind])
    with pytest.raises(DataError, match="model.json: is not readable JSON"):
        load_model(folder)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["bare", "zip", "legacy", "npy"])
@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors", "w.pt", "w.npz"])
def test_a_pickle_given_as_weights_is_refused_and_not_run(kind, name, evil, marker, tmp_path):
    file = tmp_path / name
    file.write_bytes(evil[kind])
    for trunk, system in (("lite", "cca-type1"), ("vit_tiny_patch16_224", "triplet"), ("resnet18", "csn")):
        with pytest.raises((ValueError, TrunkError), match=f"{name}.*"):
            create_model(system, trunk=trunk, conditions=2, weights=file)
    assert not marker.exists()


def test_weights_from_the_command_line_are_refused_in_one_line(evil, marker, tmp_path, capsys):
    from ccakit.data.drawn import write_garments

    write_garments(tmp_path / "data", 8, 4, 4, size=32, progress=False)
    (tmp_path / "w.pth").write_bytes(evil["zip"])
    flags = ["--data", tmp_path / "data", "--out", tmp_path / "run", "--weights", tmp_path / "w.pth"]
    assert main(["train", *map(str, flags)]) == 1
    told = capsys.readouterr().err
    assert f"ccakit train: {tmp_path / 'w.pth'}: weights cannot be read" in told and not marker.exists()


@pytest.mark.parametrize("kind", ["bare", "zip", "legacy", "npy"])
def test_a_pickle_among_kept_features_is_computed_anew_and_not_run(kind, evil, marker, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    split = Split("test", tmp_path, ATTRIBUTES, ["a.png"], np.array([[0, 0, 1]]))
    saved = saved_model()
    inputs = ImageInputs(split, saved.transform)
    wanted = keep_features(saved.model, inputs, tmp_path / "kept", progress=False).load(np.array([0]))
    (file,) = (tmp_path / "kept").glob("*.npy")
    file.write_bytes(evil[kind])
    with pytest.raises(Exception):  # noqa: B017 - of several kinds, by what numpy takes the file for
        FeatureInputs(file, inputs).load(np.array([0]))
    again = keep_features(saved.model, inputs, tmp_path / "kept", progress=False).load(np.array([0]))
    assert torch.equal(again, wanted) and not marker.exists()


def npy(folder: Path, array: np.ndarray) -> bytes:
    np.save(folder / "made.npy", array)
    return (folder / "made.npy").read_bytes()


def npz(folder: Path) -> bytes:
    np.savez(folder / "made.npz", np.zeros((1, 4), np.float16))
    return (folder / "made.npz").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole, folder: whole[:40],
        lambda whole, folder: whole[:-1],
        lambda whole, folder: b"",
        lambda whole, folder: npz(folder),
        lambda whole, folder: npz(folder)[:60],
        lambda whole, folder: b"PK\x03\x04",
        lambda whole, folder: npy(folder, np.zeros((1, 152, 2, 2), np.float64)),
        lambda whole, folder: npy(folder, np.zeros(1, np.float16)),
        lambda whole, folder: npy(folder, np.float16(1)),
        lambda whole, folder: npy(folder, np.zeros((2, 152, 2, 2), np.float16)),
    ],
)
def test_kept_features_that_are_not_whole_are_computed_anew(damage, tmp_path):
    """Cut short, a zip (np.savez's, whose one array stands for the image), or of another shape or type."""
    from PIL import Image

    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    split, saved = Split("test", tmp_path, ATTRIBUTES, ["a.png"], np.array([[0, 0, 1]])), saved_model()
    inputs = ImageInputs(split, saved.transform)
    wanted = keep_features(saved.model, inputs, tmp_path / "kept", progress=False).load(np.array([0]))
    (file,) = (tmp_path / "kept").glob("*.npy")
    whole = file.read_bytes()
    file.write_bytes(damage(whole, tmp_path))
    again = keep_features(saved.model, inputs, tmp_path / "kept", progress=False).load(np.array([0]))
    assert torch.equal(again, wanted) and file.read_bytes() == whole


def one_line(error) -> str:
    told = str(error.value)
    assert "\n" not in told and len(told) < 400
    return told


@pytest.mark.parametrize(
    "name,write,told",
    [
        ("w.pth", lambda f: f.write_bytes(b"none at all"), "weights cannot be read"),
        ("w.safetensors", lambda f: f.write_bytes(b"none at all"), "weights cannot be read"),
        ("w.pth", lambda f: None, "no such weights file for lite"),
        ("w.pth", lambda f: torch.save([1], f), "holds no weights"),
        ("w.pth", lambda f: torch.save({"a": 1}, f), "holds no weights"),
        ("w.pth", lambda f: torch.save({"a": torch.zeros(2)}, f), "its tensors have other shapes"),
        ("w.safetensors", lambda f: save_file({"a": torch.zeros(2)}, f), "its tensors have other shapes"),
    ],
)
def test_what_is_no_weights_file_of_lite_is_one_line(name, write, told, tmp_path):
    file = tmp_path / name
    write(file)
    with pytest.raises(TrunkError) as error:
        create_model("cca-type1", conditions=2, trunk="lite", weights=file)
    assert (
        one_line(error).startswith(f"{file}: ")
        and told in one_line(error)
        and "pip install" in one_line(error)
    )


@pytest.mark.parametrize(
    "system,trunk,options,works",
    [
        ("csn", "resnet18", {"nonsense": 4}, "resnet50 (the paper's)"),
        ("csn", "lite", {"nonsense": 4}, "width, depth"),
        ("csn", "resnet18", {"output_stride": 7}, "resnet50 (the paper's)"),
        ("triplet", "vit_tiny_patch16_224", {"nonsense": 4}, "vit_base_r50_s16_224"),
        ("triplet", "vit_tiny_patch16_224", {"embed_dim": 10}, "vit_base_r50_s16_224"),
        ("triplet", "lite", {"nonsense": 4}, "width, depth"),
    ],
)
@pytest.mark.parametrize("weights", [False, True])
def test_options_that_do_not_fit_are_not_told_as_weights(system, trunk, options, works, weights, tmp_path):
    if weights:
        save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    given = dict(weights=tmp_path / "w.safetensors") if weights else dict(pretrained=False)
    with pytest.raises(TrunkError, match=f"{trunk} does not take {[*options][0]}") as error:
        create_model(system, conditions=2, trunk=trunk, trunk_options=options, **given)
    assert f"what works: {works}" in one_line(error) and "--no-pretrained" not in one_line(error)


@pytest.mark.parametrize(
    "system,trunk,other",
    [
        ("triplet", "vit_tiny_patch16_224", "vit_small_patch16_224"),
        ("triplet", "vit_tiny_patch16_224", "resnet18"),
        ("csn", "resnet18", "resnet50"),
        ("csn", "resnet18", "vit_tiny_patch16_224"),
    ],
)
def test_weights_of_another_network_are_refused(system, trunk, other, tmp_path):
    """timm leaves random what a file does not name, and says so in a warning at most."""
    import timm

    for name in (trunk, other):
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    create_model(system, conditions=2, trunk=trunk, image_size=64, weights=tmp_path / f"{trunk}.safetensors")
    with pytest.raises(TrunkError, match=f"not the weights of {trunk}|cannot be loaded from") as error:
        create_model(
            system, conditions=2, trunk=trunk, image_size=64, weights=tmp_path / f"{other}.safetensors"
        )
    assert f"{other}.safetensors" in one_line(error)


MODULES = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
CALLS = {"torch.load": "weights_only", "np.load": "allow_pickle", "numpy.load": "allow_pickle"}
NEVER = (
    "read_pickle",
    "read_hdf",
    "jit.load",
    "hub.load",
    "yaml.load",
    "unsafe_load",
    "from_pickle",
    "torch.package",
)


def python_sources() -> list[tuple[str, str]]:
    """The repository's code: scripts, package, and the notebooks' cells."""
    parts = ("ccakit", "data_prep", "benchmarks", "figures")
    files = [f for part in parts for f in sorted((ROOT / part).rglob("*.py"))]
    found = [(str(f.relative_to(ROOT)), f.read_text()) for f in files]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        lines = "".join("".join(c["source"]) + "\n" for c in cells).splitlines()
        found.append(
            (path.name, "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))
        )
    return found


def problems(name: str, text: str) -> list[str]:
    """What in a source could run a pickle."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            roots = {n.split(".")[0] for n in names} & MODULES
            found += [f"{name}: imports {root}" for root in roots]
            loaders = {a.name for a in node.names} & {*NEVER, "*"} if isinstance(node, ast.ImportFrom) else ()
            found += [f"{name}: imports {loader} by its bare name" for loader in loaders]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [f"{name}: calls {called}" for never in NEVER if called.endswith(never)]
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if called in CALLS and given.get(CALLS[called]) is not (called == "torch.load"):
                found.append(f"{name}: {called} without {CALLS[called]}")
            if given.get("allow_pickle") or given.get("weights_only") is False:
                found.append(f"{name}: {called} allows a pickle")
    return found


def test_no_source_can_load_a_pickle():
    sources = python_sources()
    assert len(sources) > 60 and any(name.endswith(".ipynb") for name, _ in sources)
    assert not [problem for name, text in sources for problem in problems(name, text)]


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "pd.read_pickle(f)",
        "pd.read_hdf(f)",
        "from pandas import read_pickle",
        "from pandas import *",
        "torch.jit.load(f)",
        "yaml.load(f)",
        "import joblib.x",
    ],
)
def test_the_search_finds_what_it_searches(line):
    assert problems("x.py", line)


# --- damage


def test_cut_anywhere_it_is_not_loaded(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        (folder / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(DataError, match="model.safetensors: is not a whole safetensors file"):
            load_model(folder)
    (folder / "model.safetensors").write_bytes(whole + b"x")
    with pytest.raises(DataError, match="is not a whole safetensors file"):
        load_model(folder)


def test_flipped_bytes_in_the_header_are_noticed(folder):
    """A header with a byte changed is refused or, where JSON does not mind (as a space), means the same."""
    whole = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    before, rng, refused = load_model(folder).model.state_dict(), np.random.default_rng(0), 0
    for place in [0, 1, 5, 7, *rng.integers(8, 8 + size, 24)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        (folder / "model.safetensors").write_bytes(damaged)
        try:
            after = load_model(folder).model.state_dict()
            assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
        except DataError as error:
            refused += 1
            assert "model.safetensors: " in str(error) and "ccakit train" in str(error)
    assert refused > 20


@pytest.mark.parametrize(
    "change,told",
    [
        (lambda t: t.pop("head.fc.bias"), "it lacks head.fc.bias"),
        (lambda t: [t.pop(n) for n in ("head.fc.bias", "head.fc.weight")], "it lacks head.fc.* and 1 more"),
        (lambda t: t.update(more=torch.zeros(2)), "it also has more"),
        (
            lambda t: t.update({"head.fc.bias": t["head.fc.bias"][:-1].clone()}),
            "in another shape or type head.fc.bias",
        ),
        (
            lambda t: t.update({"head.fc.weight": t["head.fc.weight"][None].clone()}),
            "in another shape or type head.fc.wei",
        ),
        (
            lambda t: t.update({"head.fc.bias": t["head.fc.bias"].view(torch.int32)}),
            "in another shape or type head.fc.b",
        ),
        (lambda t: t.update(fc=t.pop("head.fc.bias")), "it lacks head.fc.bias, also has fc"),
    ],
)
def test_other_tensors_are_one_clear_error(folder, change, told):
    change_tensors(folder / "model.safetensors", change)
    with pytest.raises(
        DataError, match=f"does not hold the weights that model.json describes: .*{told}"
    ) as error:
        load_model(folder)
    assert str(folder / "model.safetensors") in str(error.value) and "ccakit train" in str(error.value)


@pytest.mark.parametrize(
    "change,told",
    [
        (lambda f: f["recipe"].update(name="csn"), "model.safetensors: does not hold the weights"),
        (lambda f: f["recipe"].update(name="nothing"), "no model 'nothing'"),
        (lambda f: f["recipe"]["trunk_options"].update(width=64), "in another shape or type"),
        (lambda f: f["recipe"]["trunk_options"].update(width=10**12, num_heads=1), "model"),
        (lambda f: f["recipe"].update(conditions=10**9), "conditions, but 2 attributes"),
        (lambda f: f["recipe"].update(trunk=["x"]), "does not describe a model"),
        (
            lambda f: f["recipe"].update(weights="/etc/passwd"),
            "a recipe names no files or addresses, as in weights",
        ),
        (
            lambda f: f["recipe"]["trunk_options"].update(checkpoint_path="x.pth"),
            "no files or addresses, as in checkpoint",
        ),
        (lambda f: f["recipe"].update(pretrained=True), "no files or addresses, as in pretrained"),
        (lambda f: f.pop("recipe"), "KeyError: 'recipe'"),
        (lambda f: f.update(recipe=[1]), "does not describe a model"),
        (lambda f: f.update(format=2), "its format is 2, and this ccakit reads 1"),
        (lambda f: f["attributes"].pop("tone"), "2 conditions, but 1 attributes"),
        (lambda f: f["attributes"].update(tone="abc"), "each attribute has a list of value names"),
        (lambda f: f["attributes"].update(tone=["a", 1]), "each attribute has a list of value names"),
        (lambda f: f["attributes"].update(tone=["a", "a"]), "no value, or one value twice"),
        (lambda f: f["transform"].update(std=[0.5, 0.5, 0]), "std.2: .* greater than 0, not 0"),
        (lambda f: f["transform"].update(mean=["a", "b", "c"]), "does not describe a model"),
        (lambda f: f["transform"].update(mean=[float("nan")] * 3), "not finite"),
        (lambda f: f["transform"].update(size=[10**9, 10**9]), "does not describe a model"),
        (lambda f: f["transform"].update(more=1), "does not describe a model"),
    ],
)
def test_a_description_that_was_tampered_with_is_one_clear_error(tmp_path, change, told):
    folder = tmp_path / "model"
    save_model(folder, saved_model(**LITE))
    change_json(folder / "model.json", change)
    with pytest.raises(DataError, match=told) as error:
        load_model(folder)
    assert str(folder) in str(error.value) and "Give a run folder" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a":' * 50_000, "\x00"])
def test_a_description_that_is_no_json_is_one_clear_error(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(DataError, match="model.json: (is not readable JSON|does not hold a JSON object)"):
        load_model(folder)
    (folder / "model.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="model.json: is not readable JSON"):
        load_model(folder)


@pytest.mark.parametrize(
    "name,options",
    [
        ("csn", {}),
        ("asen-pp", {"crop": "map"}),
        ("triplet", {}),
        ("networks", {}),
        ("m2fashion", {"values": [2, 2]}),
        ("cca-type1", {"head_norm": "batchnorm"}),
        ("cca-type2", {"head": "each", "head_norm": "batchnorm"}),
    ],
)
def test_what_is_whole_is_loaded(name, options, tmp_path):
    saved = saved_model(name, **LITE, **options)
    save_model(tmp_path, saved)
    again = load_model(tmp_path)
    assert not any(p.is_meta for p in (*again.model.parameters(), *again.model.buffers()))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.model(images), saved.model.eval()(images))
    assert again.attributes == saved.attributes and again.transform == saved.transform
