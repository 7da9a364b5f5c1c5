"""The figures and tables of figures/: each runs from a small run, is not blank, and cuts no text off."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from made_once import made_once
from matplotlib.colors import to_hex
from matplotlib.text import Text
from places import ROOT

from ccakit.audit.paper import audit_paper
from ccakit.commands import demo
from ccakit.data.layout import read_dataset
from ccakit.disk import write_json
from ccakit.settings import to_dict
from ccakit.show import style
from ccakit.training.config import TrainConfig

sys.path.insert(0, str(ROOT / "figures"))
import shared  # noqa: E402
import sheets  # noqa: E402

FIGURES = [f"figure{n}" for n in ("1", "2", "3", "4", "5", "6", "A2", "A3")]
NAMES = [*FIGURES, "table1", "tables2to4", "table5"]
FROM_A_RUN = {"figure4", "figure5", "figure6", "figureA2", "figureA3", "table1"}
MORE = {
    "figure1": ["--trunk", "lite"],
    "figure4": ["--images", "2"],
    **{name: ["--points", "25"] for name in ("figure5", "figure6", "figureA3")},
}


def module(name):
    return importlib.import_module(name)


COMPARED = ["cca-type2", "asen", "camnet", "triplet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    def make(root: Path) -> None:
        small = dict(train=96, valid=40, test=80, budget="epochs=2", pictures=False)
        demo.run(demo.Config(out=root / "run", data=root / "data", **small))
        shared.compared(COMPARED, shared.run_or_demo(root / "run"), folder=root / "systems")

    return shared.run_or_demo(made_once(tmp_path_factory, "figures", make) / "run")


@pytest.fixture(scope="module")
def runs(run):
    """CCA, and what it is compared with, trained with the settings of `run`."""
    given = shared.compared(COMPARED, run, folder=run.folder.parent / "systems")
    return dict(zip(COMPARED, given))


@pytest.fixture(scope="module")
def drawn(run, runs):
    """The figures that show attributes, drawn once."""
    return {
        "figure4": module("figure4").draw(run, images=3),
        "figure5": module("figure5").draw([runs["cca-type2"], runs["triplet"]], points=20),
        "figure6": module("figure6").draw([runs[name] for name in module("figure6").SYSTEMS], points=20),
        "figureA2": module("figureA2").draw(run),
        "figureA3": module("figureA3").draw(run, points=20),
    }


def texts(figure):
    """All text that is seen: matplotlib keeps labels of ticks beyond an axis' ends, too."""
    figure.draw_without_rendering()
    hidden = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]


def inside(figure):
    """All text lies within the figure, to half a pixel of its own 100 dpi."""
    for text in texts(figure):
        box = text.get_window_extent()
        low, high = figure.bbox.min - 0.5, figure.bbox.max + 0.5
        assert (box.min >= low).all() and (box.max <= high).all(), text.get_text()


def no_overlap(figure):
    """No two texts of a diagram or table lie on each other."""
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    for i, (a, one) in enumerate(boxes):
        for b, two in boxes[i + 1 :]:
            width = min(one.x1, two.x1) - max(one.x0, two.x0)
            height = min(one.y1, two.y1) - max(one.y0, two.y0)
            assert width < 1 or height < 2.5, f"{a!r} on {b!r}"


FEW = {"figure2", "figure4", "table1"}


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_every_script_writes_png_and_pdf(name, request, tmp_path, capsys):
    argv = ["--out", str(tmp_path), *MORE.get(name, [])]
    if name in FROM_A_RUN:
        run, runs = request.getfixturevalue("run"), request.getfixturevalue("runs")
        argv += ["--run", str(run.folder)]
        capsys.readouterr()  # what their training printed
    argv += ["--other", str(runs["triplet"].folder)] if name == "figure5" else []
    argv += (
        ["--runs", *(f"{n}={runs[n].folder}" for n in module("figure6").SYSTEMS)] if name == "figure6" else []
    )
    paths = module(name).main(argv)
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    kinds = {".png", ".pdf"} | ({".md"} if name.startswith("table") else set())
    assert {path.suffix for path in paths} == kinds
    if name == "tables2to4":
        assert {path.stem for path in paths} == {"table2", "table3", "table4"}
    for path in paths:
        assert path.parent == tmp_path and path.stem.startswith(name.removesuffix("s2to4"))
        if path.suffix == ".png":
            picture = cv2.imread(str(path))
            assert picture.std() > 15 and (picture[:3] == 255).mean() > 0.5  # not blank; white above
            assert (
                picture.shape[1] / 300 == pytest.approx(shared.TEXT, abs=0.01)
                or path.stem == "figureA3_matrix"
            )
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")


@pytest.mark.slow
def test_a_script_runs_alone_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "figures/figure3.py", "--out", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["figure3.pdf", "figure3.png"]


def test_no_text_is_cut_off_or_lies_on_another(drawn):
    for figure in drawn.values():
        inside(figure)
        no_overlap(figure)


@pytest.mark.parametrize("name", ["figure1", "figure2", "figure3"])
def test_diagrams_have_no_text_on_text(name):
    figure = module(name).draw("lite") if name == "figure1" else module(name).draw()
    inside(figure)
    no_overlap(figure)
    assert all(text.get_parse_math() for text in texts(figure) if "$" in text.get_text()), "an own formula"


def test_text_is_large_enough_to_read(drawn):
    for name in ("figure1", "figure2", "figure3"):
        drawn = {**drawn, name: module(name).draw(*["lite"][: name == "figure1"])}
    for name, figure in drawn.items():
        assert min(text.get_fontsize() for text in texts(figure)) >= 5.8, name
        assert figure.get_figwidth() == shared.TEXT


def test_panels(drawn, run):
    k = len(run.split.attributes)
    assert len(drawn["figure4"].axes) == 3 * (k + 1)
    halves = drawn["figure5"].subfigs
    assert [len(half.axes) for half in halves] == [k + 1, k + 1]
    assert len(drawn["figure6"].axes) == 9
    assert [len(half.axes) for half in drawn["figureA2"].subfigs] == [4 * k, 4 * k]
    assert len([ax for ax in drawn["figureA3"].axes if ax.axison]) == k


def test_an_attribute_has_one_colour_in_every_figure(drawn, run):
    names, inks = run.split.attributes.names, {}
    for figure in drawn.values():
        for text in figure.findobj(Text):
            name = text.get_text().strip().replace("\n", "_").replace(" ", "_")
            if name in names:
                inks.setdefault(name, []).append(to_hex(text.get_color()))
    assert set(inks) == set(names) and all(len(set(colors)) == 1 for colors in inks.values())
    assert all(len(colors) >= 5 for colors in inks.values())  # Figures 4, 5 (twice), A2 and A3
    assert len({colors[0] for colors in inks.values()}) == len(names)
    colors = [to_hex(color) for color in style.attribute_colors(len(names))]
    frames = [to_hex(ax.spines["top"].get_edgecolor()) for ax in drawn["figureA3"].axes[: len(names)]]
    assert frames == colors
    for half in drawn["figure5"].subfigs:
        assert [to_hex(ax.spines["top"].get_edgecolor()) for ax in half.axes[:-1]] == colors
        assert {to_hex(c) for c in half.axes[-1].collections[0].get_facecolors()} <= set(colors)


def test_figure4_covers_every_attribute(run):
    chosen = module("figure4").pick(run.split, 5)
    visible = np.unique(run.split.regions[np.isin(run.split.regions[:, 0], chosen), 1])
    assert len(set(chosen.tolist())) == 5 and len(visible) == len(run.split.attributes)


def test_figure_5_has_the_same_points_whether_or_not_there_is_a_condition(drawn):
    left, right = drawn["figure5"].subfigs
    for a, b in zip(left.axes, right.axes):
        assert len(a.collections[0].get_offsets()) == len(b.collections[0].get_offsets())
    assert "mAP" in left.axes[-1].get_title() and right.axes[-1].get_title().startswith(
        "without condition: Triplet"
    )


def test_figureA2_tells_right_from_wrong(run, drawn):
    queries, found = module("figureA2").ranked(run, 2)
    assert (found[:, :, 1] == 2).all() and (found[:, :, 0] != queries[:, None, 0]).all()
    right, wrong = drawn["figureA2"].subfigs
    for half, some in ((right, all), (wrong, lambda marks: not all(marks))):
        for row in np.array(half.axes).reshape(-1, 4):
            marks = [ax.get_xlabel().startswith("✓") for ax in row[1:] if ax.axison]
            assert not marks or some(marks)


def test_figureA2_of_some_attributes(run):
    figure = module("figureA2").draw(run, attributes=("coat_length", "lapel_design"))
    assert [len(half.axes) for half in figure.subfigs] == [8, 8]
    inside(figure)
    no_overlap(figure)


def test_figure1_counts_what_is_there():
    from ccakit.models.registry import create_model

    figure1 = module("figure1")
    for name in ("triplet", "cca-type2"):
        model = create_model(name, conditions=4, pretrained=False)
        assert figure1.costs(name, 4, "lite")[0] == sum(p.numel() for p in model.parameters())
    networks, one = figure1.costs("networks", 4, "lite"), figure1.costs("triplet", 1, "lite")
    assert networks == (4 * one[0], 4 * one[1])  # which is why the K networks are not built to be counted
    assert figure1.costs("cca-type2", 8)[0] == pytest.approx(98.5e6, rel=1e-3)


def test_systems_are_trained_once_and_alike(run, runs):
    before = (runs["asen"].folder / "model.safetensors").stat().st_mtime_ns
    again = shared.compared(["asen"], run, folder=run.folder.parent / "systems")
    assert (again[0].folder / "model.safetensors").stat().st_mtime_ns == before
    ours, theirs = (json.loads((r.folder / "config.json").read_text()) for r in (run, runs["asen"]))
    assert {k for k in ours if ours[k] != theirs[k]} <= {"model", "out"}
    assert runs["cca-type2"] is run


def test_compared_systems_belong_to_settings_and_data_and_not_to_a_folders_name(draw, tmp_path, monkeypatch):
    trained = []

    def train(settings, **_):
        settings.out.mkdir(parents=True)
        (settings.out / "train.json").write_text("{}")
        trained.append(settings)

    def asen_of(folder, root, **changes):
        """Where ASEN is kept for a run with these settings and data."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", to_dict(TrainConfig(data=root, out=folder, **changes)))
        base = SimpleNamespace(folder=folder, system="cca-type2", dataset=read_dataset(root))
        (out,) = shared.compared(["asen"], base, folder=tmp_path / "systems", benchmark=tmp_path)
        return out

    monkeypatch.setattr(shared, "train", train)
    monkeypatch.setattr(shared, "run_on", lambda out, base: out)
    data, other = draw(20, 10, 10), draw(20, 10, 10, seed=1)
    first = asen_of(tmp_path / "a/run", data)
    assert asen_of(tmp_path / "b/run", data, seed=1) != first  # other settings, the same name
    assert asen_of(tmp_path / "c/run", other) != first  # other data
    assert asen_of(tmp_path / "a/run", data, lr=0.01) != first  # trained again in the same folder
    assert len(trained) == 4 and {each.model for each in trained} == {"asen"}
    moved = draw(20, 10, 10)
    assert asen_of(tmp_path / "renamed", moved, workers=2) == first  # the same run, under another name
    assert len(trained) == 4


def test_a_given_run_is_opened_on_the_data_of_the_other(monkeypatch):
    """Figures 5 and 6 draw the same images of all runs."""
    monkeypatch.setattr(shared, "open_run", lambda folder, **options: (folder, options["data"]))
    base = SimpleNamespace(system="cca-type2", dataset=SimpleNamespace(root=Path("shoes")))
    runs = shared.compared(["cca-type2", "asen"], base, ["asen=mine", "cca-type2=ours"])
    assert runs == [(Path("ours"), Path("shoes")), (Path("mine"), Path("shoes"))]


ROW = {
    "dataset": "garments",
    "mode": "spaces",
    "variant": "",
    "seed": 0,
    "status": "ok",
    "map_macro": 52.0,
    "random_map_weighted": 16.6,
    "budget": "epochs=1",
    "trunk": "lite",
    "map:skirt_length": 60.0,
    "map:coat_length": 44.0,
}


def rows_file(path, *changes):
    from ccakit.benchmark.results import write_rows

    write_rows(path, [{**ROW, **change} for change in changes])
    return path


def checked_by_counts(file):
    """Tables 2 to 5, with the rows of a results file."""
    return [*(module("tables2to4").make(number, file) for number in (2, 3, 4)), module("table5").make(file)]


def test_tables_hold_the_papers_figures_and_what_is_recomputed():
    audit = audit_paper()
    for number, (dataset, _) in module("tables2to4").TABLES.items():
        block = module("tables2to4").make(number, ROOT / "no.csv").blocks[0]
        rows = {row[0].removesuffix(" †"): row for row in block.rows}
        for mean in (m for m in audit["rows"] if m["dataset"] == dataset):
            row = rows[mean["method"]]
            assert row[2].strip("*") == f"{mean['printed']:.2f}" and row[3] == f"{mean['map_weighted']:.2f}"
            assert ((block.rows.index(row), 2) in block.marked) == (not mean["fits"])
        assert rows["  expected, exactly"][2] == f"{audit['random'][dataset]['overall']['expected']:.2f}"
    notes = module("tables2to4").make(3, ROOT / "no.csv").blocks[0].notes
    assert any("TF-ASEN on DARN" in note for note in notes)
    assert any("+0.42" in note for note in module("table5").make(ROOT / "no.csv").blocks[0].notes)


def test_what_is_not_measured_is_said_and_not_invented(tmp_path):
    for sheet in checked_by_counts(tmp_path / "none.csv"):
        assert len(sheet.blocks) == 2 and not sheet.blocks[1].rows
        assert "measured" in sheet.markdown().split("Our benchmark")[1]


def test_our_rows_stand_in_blocks_of_their_own(tmp_path):
    file = rows_file(
        tmp_path / "r.csv",
        {"model": "cca-type2", "map_weighted": 50.0},
        {"model": "cca-type2", "seed": 1, "map_weighted": 60.0},
        {"model": "csn", "map_weighted": 20.0},
        {"model": "networks", "map_weighted": 90.0},
        {"model": "csn", "mode": "triplets", "map_weighted": 30.0, "status": "collapsed"},
    )
    paper, spaces, triplets = module("tables2to4").make(2, file).blocks
    assert (
        "drawn garments" in spaces.title
        and "not FashionAI" in spaces.title
        and "mode triplets" in triplets.title
    )
    assert not {row[0] for row in paper.rows} & {row[0] for row in spaces.rows}
    rows = {row[0]: row for row in spaces.rows}
    assert rows["cca-type2"][1:3] == ["2", "**55.0 ± 7.1**"] and rows["networks"][2] == "90.0"
    assert rows["random ranking"][2] == "16.6"
    assert any("1 of 1 collapsed" in note for note in triplets.notes)


def test_drawn_tables_cut_nothing_off_and_lay_nothing_on_another(tmp_path, run):
    file = rows_file(
        tmp_path / "r.csv", *({"model": "csn", "mode": m, "map_weighted": 20.0} for m in ("a", "b"))
    )
    for sheet in (*checked_by_counts(file), module("table1").make(run)):
        figure = sheets.draw_sheet(sheet)
        inside(figure)
        no_overlap(figure)
