"""The paper's statements about its tables and data, each beside what the tables and the label counts give."""

from __future__ import annotations

from collections.abc import Iterator

from ccakit.audit.tables import ASEN_DARN

REPORTED = ("FashionAI", "DARN", "DeepFashion", "Zappos50K")  # the data sets of Tables 2-5
SIDES = ("images", "queries", "candidates")  # the counts of a split; images: of train
Claim = tuple[str, str, str, bool]  # where, says, computed, holds


def claims(tables: dict, facts: dict, random: dict) -> list[dict]:
    """Check every statement: {"where", "says", "computed", "holds"}, those that do not hold first.

    tables: the paper's. facts: the data sets' label counts. random: by data set, the printed random row
    beside its exact expectation (`ccakit.audit.paper.random_rows`).
    """
    found = [
        *_table1(tables, facts),
        *_gains(tables),
        *_best(tables),
        *_types(tables),
        *_backbones(tables),
        *_difficulty(tables, random),
        *_darn_rows(tables, random["DARN"]),
    ]
    rows = [{"where": a, "says": b, "computed": c, "holds": bool(d)} for a, b, c, d in found]
    return sorted(rows, key=lambda row: row["holds"])


def overall(tables: dict, dataset: str, method: str) -> float:
    """Look up the overall figure printed in a row: mAP, or triplet accuracy in Table 5."""
    return tables[dataset]["rows"][method]["accuracy" if dataset == "Zappos50K" else "mAP"]


def _equal(a: float, b: float) -> bool:
    return abs(a - b) < 0.005


def _difference(a: float, b: float, remark: str = "") -> str:
    return f"{a:.2f} - {b:.2f}{remark} = {a - b:.2f}"


def _table1(tables: dict, facts: dict) -> Iterator[Claim]:
    """Attributes, classes and images of the data sets whose counts are known."""
    for row in tables["statistics"]["rows"]:
        name = row["dataset"]
        if name not in facts:
            continue
        counts = facts[name]
        here, columns = len(counts["attributes"]), len(tables[name]["attributes"])
        computed = f"{here} in the split files, {columns} in {tables[name]['table']}"
        holds = here == columns == row["attributes"]
        yield "Table 1", f"{name}: {row['attributes']} attributes", computed, holds
        total, used = sum(counts["sizes"]), _used_classes(counts)
        sizes = "+".join(map(str, counts["sizes"]))
        computed = f"{sizes} = {total}, of which {used} occur in the lists known"
        yield "Table 1", f"{name}: {row['classes']} classes", computed, total == row["classes"]
        yield from _images(name, row["images"], {s: split["count"] for s, split in counts["splits"].items()})


def _used_classes(counts: dict) -> int:
    """Count the values that occur in any of the known lists."""
    splits, used = counts["splits"].values(), 0
    for attribute in counts["attributes"]:
        lists = [split[side][attribute] for split in splits for side in SIDES if side in split]
        used += sum(any(times) for times in zip(*lists))
    return used


def _images(name: str, printed: int, counts: dict[str, int]) -> Iterator[Claim]:
    """Images, where all splits are known, and of DARN, whose valid and test splits are a tenth each."""
    says = f"{name}: {printed:,} images"
    if "train" in counts:
        total = sum(counts.values())
        computed = f"{' + '.join(f'{n:,}' for n in counts.values())} ({', '.join(counts)}) = {total:,}"
        yield "Table 1", says, computed, total == printed
    elif name == "DARN":
        computed = (
            f"valid and test have {counts['valid']:,} and {counts['test']:,} images, a tenth each: "
            f"of ASEN's release ({ASEN_DARN:,} // 10 = {ASEN_DARN // 10:,}), not of these ({printed // 10:,})"
        )
        yield "Table 1", says, computed, printed // 10 == counts["test"]


def _gains(tables: dict) -> Iterator[Claim]:
    """CCA over the best published result: a row that has a source and is not the paper's reproduction."""
    for dataset, gain in {"FashionAI": 4.72, "DARN": 12.15, "DeepFashion": 1.4, "Zappos50K": 3.61}.items():
        rows = tables[dataset]["rows"]
        published = [m for m, row in rows.items() if row["source_ref"] and not row["reproduced_by_paper"]]
        best = max(published, key=lambda method: overall(tables, dataset, method))
        ours = max(overall(tables, dataset, f"CCA (Type-{i})") for i in (1, 2))
        theirs = overall(tables, dataset, best)
        computed = _difference(ours, theirs, f" ({best})")
        yield "section 4.5", f"{dataset}: +{gain}", computed, _equal(ours - theirs, gain)


def _best(tables: dict) -> Iterator[Claim]:
    """CCA is the best for every attribute, except FashionAI's neck design."""
    for dataset, exceptions in {"FashionAI": ["neck_design"], "DARN": [], "DeepFashion": []}.items():
        rows, lost = tables[dataset]["rows"], []
        for attribute in tables[dataset]["attributes"]:
            best = max(rows, key=lambda method: rows[method]["per_attribute"][attribute])
            if not best.startswith("CCA"):
                lost.append(attribute)
        says = " except ".join([f"{dataset}: CCA is best for all attributes", *exceptions])
        yield "section 4.5", says, f"not best for: {', '.join(lost) or 'none'}", lost == exceptions


def _types(tables: dict) -> Iterator[Claim]:
    """Type-2 over Type-1 on three data sets; Type-1 over Type-2 on the fourth, with two figures."""
    one, two = ({d: overall(tables, d, f"CCA (Type-{i})") for d in REPORTED} for i in (1, 2))
    for dataset, gain in {"FashionAI": 2.97, "DARN": 1.31, "DeepFashion": 0.4}.items():
        computed, holds = _difference(two[dataset], one[dataset]), _equal(two[dataset] - one[dataset], gain)
        yield "section 4.6", f"{dataset}: Type-2 over Type-1 by +{gain}", computed, holds
    ours = one["Zappos50K"]
    for gain in (0.42, 0.13):
        methods = tables["Zappos50K"]["rows"]
        fitting = [m for m in methods if _equal(ours - overall(tables, "Zappos50K", m), gain)]
        computed = _difference(ours, two["Zappos50K"])
        if fitting and "CCA (Type-2)" not in fitting:
            computed += f"; {gain} is Type-1's distance to {' and '.join(fitting)}"
        says = f"Zappos50K: Type-1 over Type-2 by +{gain}"
        yield "section 4.6", says, computed, _equal(ours - two["Zappos50K"], gain)


def _backbones(tables: dict) -> Iterator[Claim]:
    """ASEN beats CSN on the CNN and not on the ViT; CAMNet on DARN is below both."""
    cnn = [overall(tables, d, "ASEN") - overall(tables, d, "CSN") for d in REPORTED]
    vit = [overall(tables, d, "TF-ASEN") - overall(tables, d, "TF-CSN") for d in REPORTED]
    texts = [" ".join(f"{gain:+.2f}" for gain in gains) for gains in (cnn, vit)]
    says = "ASEN beats CSN on the CNN, not on the ViT"
    yield "section 4.6", says, f"{texts[0]} on the CNN, {texts[1]} on the ViT", min(cnn) > 0 > max(vit)
    figures = [overall(tables, "DARN", method) for method in ("CAMNet", "ASEN", "CSN")]
    computed = ", ".join(f"{figure:.2f}" for figure in figures)
    yield "section 4.6", "CAMNet on DARN is below ASEN and CSN", computed, figures[0] < min(figures[1:])


def _difficulty(tables: dict, random: dict) -> Iterator[Claim]:
    """The more attributes and classes a data set has in Table 1, the lower CCA's mAP in Tables 2-4."""
    statistics = {row["dataset"]: row for row in tables["statistics"]["rows"]}
    parts, scores = [], []
    for name in sorted(random, key=lambda name: statistics[name]["attributes"]):
        row, chance = statistics[name], random[name]["overall"]["expected"]
        scores.append(overall(tables, name, "CCA (Type-2)"))
        sizes = f"{row['attributes']} attributes, {row['classes']} classes"
        parts.append(f"{name}: {sizes}, CCA {scores[-1]:.2f}, random {chance:.2f}")
    says = "difficulty increases with the number of attributes, and for higher classes"
    yield "section 4", says, "; ".join(parts), scores == sorted(scores, reverse=True)


def _darn_rows(tables: dict, random: dict) -> Iterator[Claim]:
    """Two rows of Table 3: TF-ASEN is near random rankings in most attributes; the random row is off."""
    printed, chance = tables["DARN"]["rows"]["TF-ASEN"]["per_attribute"], random["overall"]
    gains = {name: figure - random["per_attribute"][name]["expected"] for name, figure in printed.items()}
    above = [name for name, gain in gains.items() if gain > 5]
    near = [gain for name, gain in gains.items() if name not in above]
    others = ", ".join(f"{name} {gains[name]:+.2f}" for name in above)
    span = f"{min(near, default=0):+.2f} to {max(near, default=0):+.2f}"
    computed = (
        f"random rankings have {chance['expected']:.2f} ({chance['printed']:.2f} printed); "
        f"{len(near)} of {len(gains)} attributes are {span} from random; others: {others}"
    )
    says = "TF-ASEN on DARN: 33.52, the result of a trained model"
    yield "Table 3", says, computed, len(above) > len(gains) / 2
    off = [row["difference"] for row in random["per_attribute"].values()]
    rest = max(abs(points - round(points)) for points in off)
    shown = " ".join(f"{round(points, 2) + 0.0:+.2f}" for points in off)
    computed = f"printed less expected: {shown}; each within {rest:.2f} of a whole number"
    yield "Table 3", "random baseline on DARN: 32.26", computed, max(map(abs, off)) < 0.5
