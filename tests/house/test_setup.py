"""Set-up files agree with each other, and the README tells the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from PIL import Image
from places import ROOT

from ccakit.benchmark.results import read_rows
from ccakit.benchmark.standings import ablations_markdown, markdown, worst_markdown
from ccakit.cli import COMMANDS, main, parse
from ccakit.data.drawn import write_garments
from ccakit.data.layout import read_dataset
from ccakit.data.transform import ImageTransform
from ccakit.garments import GARMENTS
from ccakit.models.registry import create_model, list_models
from ccakit.models.saved import SavedModel, save_model

README, COMMAND_PAGE, RESULTS = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/commands.md", "docs/results.md")
)


def lines_of(text: str) -> list[str]:
    """The lines of a text's bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [re.sub(r"\s+#.*", "", line).strip() for b in blocks for line in b.splitlines() if line.strip()]


LINES = lines_of(README + COMMAND_PAGE + RESULTS)
ON_GPUS = lines_of((ROOT / "docs/reproduce.md").read_text("utf-8"))


def test_conda_installs_what_pip_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert pip == {"pip": ["-e .[test]"]}  # pyproject.toml itself, nothing written twice
    assert (
        python.replace("python", "") in (ROOT / "pyproject.toml").read_text().split("requires-python = ")[1]
    )


def test_make_help_lists_every_target():
    run = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test", "test-slow", "lab"} <= set(targets)
    assert all(f"make {target} " in run.stdout for target in targets)


@pytest.mark.parametrize(
    "line", [line for line in LINES + ON_GPUS if "ccakit " in line and not line.startswith("git ")]
)
def test_the_readmes_ccakit_lines_are_understood(line):
    words = line.split()
    words = words[next(i for i, w in enumerate(words) if w.endswith("ccakit")) + 1 :]
    assert words[0] in COMMANDS or words == ["--help"]
    if words[-1] == "--help":
        subprocess.run([sys.executable, "-m", "ccakit", *words], check=True, capture_output=True)
    else:
        parse(words[0], words[1:])


@pytest.mark.slow
def test_the_readmes_commands_run_one_after_the_other(tmp_path, monkeypatch):
    """Every line of the README and docs/commands.md as it stands, on few drawn garments and a small table."""
    write_garments(tmp_path / "data/garments", 64, 20, 30, size=64, progress=False)
    write_garments(tmp_path / "data/shoes", 32, 10, 10, size=64, progress=False)
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = [line.split()[1] for line in LINES if line.startswith(".venv/bin/ccakit") and run_line(line)]
    assert {"train", "evaluate", "embed", "random", "params", "audit"} <= set(done)


def write_table(folder: Path) -> None:
    """Write the test images of data/shoes as shoes.csv, beside `photos`, with every third cell empty."""
    split = read_dataset(folder / "data/shoes", splits=("test",))["test"]
    (folder / "photos").symlink_to(folder / "data/shoes")
    rows = [",".join(["image", *split.attributes.names])]
    for image, labels in enumerate(split.label_matrix()):
        values = [split.attributes.value(c, max(label, 0)) for c, label in enumerate(labels)]
        cells = [value if (image + c) % 3 else "" for c, value in enumerate(values)]
        rows.append(",".join([split.filenames[image], *cells]))
    (folder / "shoes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def run_line(line: str) -> bool:
    """Run a line; --help, the paper's preset, Fashion-MNIST, benchmark and app have tests of their own."""
    elsewhere = ("--help", "--preset paper", "fashion_mnist", "ccakit benchmark", "ccakit app")
    if any(part in line for part in elsewhere):
        return False
    assert main(line.split()[1:]) == 0, line
    return True


def test_every_other_line_of_the_readme_is_known():
    """`make demo` and `make test` are what CI runs; what else the README says is run by a test named here."""
    known = (
        "git clone",
        "cd ccakit",
        "make ",
        "conda ",
        "apt-get install",
        ".venv/bin/tensorboard",
        ".venv/bin/python data_prep/fashion_mnist.py",
        ".venv/bin/python data_prep/table.py",
    )
    for line in LINES:
        assert "ccakit " in line or line.startswith(known), line
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {line.split()[1] for line in LINES if line.startswith("make ")} <= targets


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    """On a model with random weights in the place of the demo's."""
    recipe = dict(name="cca-type2", conditions=8, trunk="lite")
    model = create_model(**recipe, pretrained=False)
    transform = ImageTransform.from_timm(model.trunk.pretrained_cfg)
    save_model(tmp_path / "runs/demo", SavedModel(model, GARMENTS, transform, recipe))
    write_garments(tmp_path / "data/garments", 1, 2, 2, progress=False)
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", README, re.S)), space)
    assert space["spaces"].shape == (8, 128) and space["heatmap"].shape == (8, 8)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_readmes_links_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_documented_tests_exist():
    tests = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"::(test_\w+)", (ROOT / "docs/equations.md").read_text()):
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_committed_executed_and_small(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert 25 <= len(notebook["cells"]) <= 50 and path.stat().st_size <= 600_000
    assert all(cell["execution_count"] for cell in code) and "widgets" not in notebook["metadata"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    widths = [Image.open(BytesIO(b64decode(picture))).width for picture in pictures]
    assert all(width <= 1300 for width in widths), "wider than the page"
    assert not [
        output for output in outputs if "image/jpeg" in output.get("data", {})
    ]  # blurs type and lines
    assert not [cell for cell in code if "execution" in cell["metadata"]], "timestamps of the execution"
    assert all("".join(cell["source"]).count("\n") < 30 for cell in code)


@pytest.mark.parametrize("name", ["garments", "fashion_mnist"])
def test_the_benchmark_tables_are_the_results_files(name):
    rows = read_rows(ROOT / f"results/{name}.csv")
    assert markdown(rows) in RESULTS
    assert {row["model"] for row in rows} == {info.name for info in list_models()}
    for mode in ("spaces", "triplets"):
        of = [row["seed"] for row in rows if row["mode"] == mode and row["variant"] == "plain"]
        assert sorted(of) == sorted([0, 1, 2] * len(list_models())), mode


def test_the_tables_of_one_network_and_k_are_the_results_files():
    for name in ("garments", "garments_one", "garments_rare", "fashion_mnist"):
        rows = [row for row in read_rows(ROOT / f"results/{name}.csv") if row["mode"] == "spaces"]
        shown = {row["model"] for row in rows} if name == "garments_one" else {"cca-type2", "networks"}
        assert worst_markdown([row for row in rows if row["model"] in shown]) in RESULTS


def test_the_ablation_table_is_the_results_file():
    assert ablations_markdown(read_rows(ROOT / "results/ablations.csv")) in RESULTS


def test_the_table_of_ways_to_balance_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import balancing

    assert balancing.markdown(balancing.read_csv(balancing.RESULTS)) in RESULTS


def test_the_table_of_all_systems_on_rare_labels_is_the_results_file():
    rows = read_rows(ROOT / "results/garments_rare.csv")
    assert markdown([row for row in rows if row["variant"] in (None, "plain")]) in RESULTS


def test_the_table_of_entanglement_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import entanglement

    assert entanglement.markdown(entanglement.read_csv(entanglement.RESULTS)) in RESULTS


def test_the_table_of_a_real_vit_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import vit

    for file in (vit.RESULTS, vit.RESULTS.with_name("vit_6_epochs.csv")):
        assert vit.markdown(read_rows(file)) in RESULTS


def test_the_table_of_heatmaps_of_a_real_vit_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import heatmaps

    assert heatmaps.markdown(heatmaps.read_csv(heatmaps.RESULTS)) in RESULTS


def test_the_table_of_the_rehearsal_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import rehearsal

    page = (ROOT / "docs/reproduce.md").read_text("utf-8")
    assert rehearsal.markdown(rehearsal.read(rehearsal.RESULTS)) in page


def test_the_tables_of_searches_are_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import catalogue

    page = (ROOT / "docs/catalogue.md").read_text("utf-8")
    assert catalogue.markdown(catalogue.read_csv(catalogue.RESULTS)) in page


def test_the_readmes_seed_table_is_the_results_file():
    sys.path.insert(0, str(ROOT))
    from benchmarks import demo_seeds

    rows = demo_seeds.read_csv(demo_seeds.RESULTS)
    assert demo_seeds.markdown(rows) in RESULTS
    reached = {(r["model"], r["seed"]): r for r in rows}
    for seed in "012":  # what the demo has to reach, in each seed
        ours, plain = reached["cca-type2", seed], reached["triplet", seed]
        assert float(ours["map_weighted"]) >= float(ours["random_map_weighted"]) + 45
        assert float(ours["map_weighted"]) >= 1.5 * float(plain["map_weighted"])
