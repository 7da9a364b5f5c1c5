"""Every benchmark runs at a small size, and fails where its two sides do not agree.

The scripts run with the slow tests; the fast ones check the arithmetic, and what each script claims.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import all as every  # noqa: E402
from benchmarks import (  # noqa: E402
    common,
    drawing,
    engines,
    features,
    gpu,
    growth,
    images,
    spaces,
    start,
    switcher,
    training_modes,
)
from benchmarks import mean_average_precision as mean_ap  # noqa: E402
from benchmarks.common import ROUNDS, Disagreement, Row, Times, agree, alternate, read_csv  # noqa: E402

PEERS = pytest.mark.skipif(
    not find_spec("torchmetrics") or not find_spec("pytorch_metric_learning"),
    reason="the bench extra is not installed",
)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    common.use_threads(before)


def whats(result: dict) -> dict[str, dict]:
    return {row["what"]: row for row in result["rows"]}


def test_sides_take_turns_and_another_one_begins_each_round():
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]  # the first two do not count
    assert [len(seconds) for seconds in times.seconds.values()] == [2, 2]


def test_a_ratio_is_the_median_of_rounds():
    times = Times({"a": [1.0, 2.0, 9.0], "b": [2.0, 2.0, 3.0]})  # ratios 0.5, 1, 3
    assert times.ratio("a", "b") == 1.0 and times["a"] == 2.0
    assert times.spread("a", "b") == "rounds 0.500 to 3.000, fastest 0.500"


def test_limits():
    assert Row("x", 0.9, "s", "<= 0.97").met and not Row("x", 0.98, "s", "<= 0.97").met
    assert Row("x", 5, "s", ">= 5").met and Row("x", 5, "s").met is None
    assert not Row("x", float("nan"), "s", ">= 5").met


@pytest.mark.parametrize("other", [[1.0, 2.1], [1.0], [1.0, float("nan")]])
def test_agree_notices_differences_shapes_and_nan(other):
    assert agree("same", [1.0, 2.0], torch.tensor([1.0, 2.0]), 0) == 0
    with pytest.raises(Disagreement, match="it"):
        agree("it", [1.0, 2.0], other, 1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_peak_sees_memory_that_is_gone_again():
    code = (
        "import numpy as np\nfrom benchmarks.common import Peak\n"
        "with Peak() as peak:\n    np.ones(8 << 20).sum()  # 64 MiB\nprint(peak.bytes)"
    )
    alone = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    # In a process of its own, as in the scripts, no memory is there to be used again.
    assert 60 << 20 < int(alone.stdout) < 80 << 20


@pytest.mark.slow
def test_spaces(capsys):
    result = spaces.main(["--quick", "--rounds", "1", "--threads", "1", "--json"])
    rows = whats(result)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == result["rows"]
    assert 0.9 < rows["lite: spaces 8 / plain"]["floor"] < 0.97
    assert rows["lite: spaces 8 / plain"]["limit"] == "<= 0.97"
    assert "the operations alone are more" in rows["lite: spaces 64 / spaces 8"]["note"]
    assert rows["lite: spaces 8, peak memory"]["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["plain [CLS]", "spaces 8"])
def test_spaces_notices_another_result(changed, monkeypatch):
    made = spaces.models("lite")
    pictures = spaces.pictures(made["plain"], 1)
    spaces.check(made, pictures)
    if changed == "spaces 8":
        monkeypatch.setattr(spaces, "forwards", lambda model, images: 1.01 * model(images))
    else:
        made[changed].norm = torch.nn.Identity()
    with pytest.raises(Disagreement):
        spaces.check(made, pictures)


def test_spaces_counts_operations_as_by_hand():
    """One plain block of width 128 on 65 tokens; its last block as CCA, of which k, v and the K rows are
    left."""
    made = spaces.models("lite")
    image = spaces.pictures(made["plain"], 1)
    plain, mine = (
        spaces.operations(made[name], image, rows) for name, rows in (("plain", None), ("spaces 8", 8))
    )
    n, d, k = 65, 128, 8
    block = 2 * n * 12 * d * d + 4 * n * n * d
    last = 2 * n * 2 * d * d + 2 * k * 9 * d * d + 4 * k * n * d
    token_and_head = 2 * k * d * d * 2  # the FC of Eq. 3, and that of Eq. 7
    assert plain - mine == pytest.approx(block - last - token_and_head, rel=0.01)


@pytest.mark.slow
def test_training_modes():
    rows = whats(training_modes.main(["--quick", "--rounds", "1", "--threads", "1"]))
    assert rows["comparisons a second, spaces / triplets"]["value"] > 1
    assert rows["triplets: three forwards / one pass"]["floor"] > 1


@pytest.mark.slow
def test_training_modes_notice_another_gradient(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 3, 32, 32, generator=generator)
    from ccakit.models.registry import create_model

    model = create_model("cca-type2", conditions=2, pretrained=False, image_size=32)
    extra = {"gather": torch.tensor([0, 1, 2, 3, 4, 0]), "condition": torch.tensor([0, 1] * 3)}
    training_modes.check_passes(model, inputs, extra)
    right = training_modes.three_passes

    def wrong(model, inputs, extra):
        return right(model, inputs.flip(0), extra)

    monkeypatch.setattr(training_modes, "three_passes", wrong)
    with pytest.raises(Disagreement):
        training_modes.check_passes(model, inputs, extra)


def test_comparisons_by_hand():
    labels = np.array([[0, 0], [0, 1], [1, -1], [0, 1]])
    assert training_modes.count_by_loop(labels).sum() == 6 * 1 + 2 * 1  # three images share 0; two share 1


@pytest.mark.slow
@PEERS
def test_mean_average_precision():
    rows = whats(mean_ap.main(["--quick", "--rounds", "1", "--threads", "1"]))
    for size in mean_ap.SIZES:
        assert all(np.isfinite(rows[f"{size}: {peer} / ours"]["value"]) for peer in mean_ap.PEERS)
        assert rows[f"{size}: torchmetrics, given cosines"]["value"] != 0
        assert rows[f"{size}: peak memory"]["value"] > 0


@PEERS
def test_torchmetrics_drops_candidates_whose_score_is_not_positive():
    """Cosines 0.5 (relevant), -0.5 (not), -0.6 (relevant): AP (1 + 2/3) / 2; torchmetrics sees one
    relevant."""
    query = np.array([[1, 0]], np.float32)
    cosines = np.array([0.5, -0.5, -0.6], np.float32)
    candidates = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    labels = np.array([1]), np.array([1, 0, 1])
    both = [
        mean_ap.by_torchmetrics(query, labels[0], candidates, labels[1], shift)[0] for shift in (0.0, 1.0)
    ]
    assert both == pytest.approx([1.0, (1 + 2 / 3) / 2])


@pytest.mark.slow
@pytest.mark.parametrize("peer", mean_ap.PEERS)
def test_mean_average_precision_notices_another_value(peer, monkeypatch):
    if peer not in mean_ap.present():
        pytest.skip(f"{peer} is not installed")
    data, right = mean_ap.make("large", quick=True), mean_ap.WAYS[peer]
    monkeypatch.setattr(mean_ap, "present", lambda: [peer])
    mean_ap.check(data, 20)
    monkeypatch.setitem(mean_ap.WAYS, peer, lambda *given: right(*given) + 2e-4)
    with pytest.raises(Disagreement, match=peer):
        mean_ap.check(data, 20)


def test_fashionais_protocol_has_its_sizes():
    pairs = mean_ap.labels_of("fashionai", quick=False)
    assert [sum(len(pair[side]) for pair in pairs) for side in (0, 1)] == [3600, 14_400] and len(pairs) == 8


@pytest.mark.slow
def test_images():
    rows = whats(images.main(["--quick", "--rounds", "1", "--threads", "1"]))
    assert rows["ours"]["value"] > 0 and rows["ImageFolder / ours"]["limit"] == ">= 2"
    assert all(0 < row["value"] < 1 for what, row in rows.items() if what.startswith("waiting"))


@pytest.mark.slow
def test_images_notice_other_pixels(tmp_path, monkeypatch):
    files = images.write_jpegs(tmp_path, 1)
    images.check(files)
    turned = {"ImageFolder": lambda files: [image.flip(-1) for image in images.image_folder(files)]}
    monkeypatch.setattr(images, "PEERS", turned)
    with pytest.raises(Disagreement, match="ImageFolder"):
        images.check(files)


@pytest.mark.slow
def test_drawing():
    rows = whats(drawing.main(["--quick", "--rounds", "1"]))
    assert rows["garments drawn"]["floor"] > rows["garments drawn"]["value"] > 0


def test_drawing_notices_another_picture():
    recorder, image = drawing.record(0)
    drawing.check([(recorder, image)])
    with pytest.raises(Disagreement, match="played back"):
        drawing.check([(recorder, drawing.record(1)[1])])


@pytest.mark.slow
def test_features():
    rows = whats(features.main(["--quick", "--rounds", "1", "--threads", "1"]))
    assert (
        rows["features kept"]["limit"] == ">= 350" and rows["training on kept features"]["limit"] == ">= 900"
    )


@pytest.mark.slow
def test_features_notice_other_values(tmp_path, monkeypatch):
    model, inputs = features.prepare(tmp_path, 4)
    loaded = inputs.load(np.arange(4))
    features.check(model, inputs, loaded, tmp_path / "features")
    with pytest.raises(Disagreement, match="kept and unfolded"):
        features.check(model, inputs, loaded + 0.1, tmp_path / "features")


@pytest.mark.slow
def test_growth(tmp_path):
    result = growth.main(["--quick", "--rounds", "1", "--threads", "1", "--results", str(tmp_path)])
    rows = read_csv(tmp_path / "growth.csv")
    assert len(rows) == 9 and {row["stage"] for row in rows} == set(growth.STAGES)
    assert (tmp_path / "growth.png").stat().st_size < 150_000
    assert len(result["rows"]) == 6


def test_growth_exponents_by_hand():
    rows = [
        {"stage": "training", "times": n, "seconds": n**1.5, "added_mib": 100 + 3 * n} for n in growth.TIMES
    ]
    assert growth.time_exponent(rows, "training") == pytest.approx(1.5)
    assert growth.memory_exponent(rows, "training") == pytest.approx(1.0)


@pytest.mark.slow
def test_growth_notices_another_ap(tmp_path, monkeypatch):
    growth.write_features(tmp_path / "f.npy", 260)
    split = growth.split_of(260, tmp_path)
    run = growth.evaluation(split, lambda: growth.inputs_of(split, tmp_path / "f.npy"))
    run()
    monkeypatch.setattr(growth, "_by_loop", lambda *_: np.zeros(3))
    with pytest.raises(Disagreement, match="plain loop"):
        run()


@pytest.mark.slow
def test_start():
    assert start.main(["--quick", "--rounds", "1"])["rows"][0]["what"] == "ccakit --help"


@pytest.mark.slow
def test_start_notices_a_failing_process(monkeypatch):
    monkeypatch.setitem(start.CODE, "help", "print('nothing')")
    with pytest.raises(Disagreement, match="nothing"):
        start.run("help")


@pytest.mark.slow
def test_all_runs_a_script_and_writes_the_machine(tmp_path):
    file = tmp_path / "speed.csv"
    assert every.main(["--quick", "--only", "drawing", "--results", str(file)]) == 0
    rows = read_csv(file)
    assert {row["script"] for row in rows} == {"drawing"}
    assert rows[0]["machine"] and "torch=" in rows[0]["versions"]
    every.save([{**rows[0], "script": "start"}], file)  # another script's rows stay
    assert {row["script"] for row in read_csv(file)} == {"drawing", "start"}


def test_docs_speed_has_the_results_files_table_and_a_word_on_what_was_missed():
    rows, text = read_csv(every.RESULTS), (ROOT / "docs" / "speed.md").read_text()
    assert every.markdown(rows) in text
    for row in rows:
        if row["met"] == "no":
            assert f"**{row['what']}**" in text, "say why it was missed"


@pytest.mark.slow
def test_all_fails_where_a_script_does(capsys):
    assert every.main(["--quick", "--only", "no_such_script"]) == 1
    assert "failed: no_such_script" in capsys.readouterr().err


def test_all_knows_every_script():
    no_claims_of_speed = {"common", "all", "authors_code", "demo_seeds", "entanglement", "two_machines"}
    files_of_their_own = {"balancing", "catalogue", "engines", "gpu", "heatmaps", "rehearsal", "vit"}
    scripts = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - no_claims_of_speed - files_of_their_own <= set(every.SCRIPTS)


def test_all_reads_the_json_of_the_last_line():
    result = {"rows": [{"a": 1}]}
    assert every.parse("a {table}\n" + json.dumps(result) + "\n") == ("a {table}", result)
    assert every.parse("a table\nand no JSON\n")[1] is None


@pytest.mark.slow
def test_switcher(monkeypatch, capsys):
    small = {"demo": lambda: switcher.random_switcher("lite", 60)}
    monkeypatch.setattr(switcher, "SWITCHERS", small)
    rows = whats(switcher.main(["--quick", "--threads", "1", "--json", "--switches", "12"]))
    assert [row["limit"] for row in rows.values()] == ["<= 50", "", ""]
    assert all(row["value"] > row["floor"] > 0 for row in rows.values())
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["script"] == "switcher"


@pytest.mark.slow
def test_the_switcher_notices_another_picture(monkeypatch):
    small = switcher.random_switcher("lite", 60)
    monkeypatch.setattr(switcher, "difference", lambda *pngs: 2)
    with pytest.raises(Disagreement, match="the ways differ by 2 of 255"):
        switcher.measure(small, 4)


@pytest.mark.parametrize("name", every.SCRIPTS)
def test_a_script_says_what_it_claims_and_the_results_have_it(name, capsys):
    limits = every.claims()[name]
    rows = [row for row in read_csv(every.RESULTS) if row["script"] == name and row["limit"]]
    assert limits and {row["what"]: row["limit"] for row in rows} == limits
    assert all(Row(what, float("nan"), "", limit).met is False for what, limit in limits.items())
    assert every.main(["--claims"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {what}: {limit}\n" in shown for what, limit in limits.items())


def test_every_script_has_the_common_flags():
    options = common.make_parser("A benchmark.").parse_args(["--quick", "--json"])
    assert (options.quick, options.json, options.threads, options.rounds) == (True, True, 2, None)
    assert common.begin(common.make_parser(""), ["--threads", "1"]).rounds == ROUNDS


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the export extra is not installed")
def test_engines(capsys):
    rows = whats(engines.main(["--quick", "--rounds", "1", "--threads", "1"]))
    for name in ("forward", "files", "reading", "ONNX Runtime"):
        assert rows[name]["value"] > 0 and rows[name]["unit"] == "images/s"
    assert rows["files / forward alone"]["limit"] == ">= 0.9" and "compiled" not in rows
    assert "embeddings differ by" in rows["ONNX Runtime / torch"]["note"]


@pytest.mark.slow
def test_gpu_on_the_cpu_at_a_small_size(tmp_path):
    result = gpu.main(["--quick", "--rounds", "1", "--threads", "1", "--results", str(tmp_path / "gpu.csv")])
    rows = whats(result)
    assert result["device"] == "CPU" or torch.cuda.is_available()
    assert rows["matrix rate, bf16"]["value"] > 0 and not (tmp_path / "gpu.csv").exists()
    ratio = rows["vit_tiny_r_s16_p8_224: spaces 8 / plain"]
    assert ratio["value"] > 0 and 0.5 < ratio["floor"] < 1.5
    for name in ("paper", "ours"):
        assert rows[f"steps of {name}"]["value"] > 0 and "GFLOP an image" in rows[f"steps of {name}"]["note"]
    assert rows["resumed after 3 of 6 steps"]["value"] == 0 or torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="no CPU-only machine")
def test_the_cpu_is_not_measured_as_a_gpu(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no GPU is here; on the CPU, take --quick" in capsys.readouterr().err
