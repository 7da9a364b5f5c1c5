"""What the paper says of its own tables and data, each statement beside what its tables and the label counts give."""

from __future__ import annotations

ASEN_DARN = 214_619  # images in ASEN's release of DARN, from which the splits are


def claims(tables: dict, facts: dict, random: dict) -> list[dict]:
    """Every statement: {"where", "says", "computed", "holds"}, the contradicted first.

    tables: paper.json. facts: the data sets of protocol.json. random: `protocol.random_rows`, the exact
    expectations.
    """
    found = [
        *_of_table1(tables, facts),
        *_of_gains(tables),
        *_of_best(tables),
        *_of_types(tables),
        *_of_backbones(tables),
        _of_difficulty(tables, random),
        _of_tf_asen(tables, random),
        _of_random(tables, random),
    ]
    return sorted(found, key=lambda each: each["holds"])


def _claim(where: str, says: str, computed: str, holds: bool) -> dict:
    return {"where": where, "says": says, "computed": computed, "holds": bool(holds)}


def overall(tables: dict, dataset: str, method: str) -> float:
    """The overall figure printed in a row: mAP, or triplet accuracy in Table 5."""
    row = tables[dataset]["rows"][method]
    return row["accuracy"] if dataset == "Zappos50K" else row["mAP"]


def _equal(a: float, b: float) -> bool:
    return abs(a - b) < 0.005


def classes(facts: dict) -> tuple[int, int]:
    """How many values a data set's attributes have, and how many of them occur in the lists that the facts are from."""
    used = 0
    for attribute, size in zip(facts["attributes"], facts["sizes"]):
        columns = [
            split[side][attribute]
            for split in facts["splits"].values()
            for side in ("images", "queries", "candidates")
            if side in split
        ]
        used += sum(any(column[label] for column in columns) for label in range(size))
    return sum(facts["sizes"]), used


def _of_table1(tables: dict, facts: dict) -> list[dict]:
    """Attributes, classes and images of the three data sets whose counts are known."""
    found = []
    for row in tables["statistics"]["rows"]:
        if (name := row["dataset"]) not in facts:
            continue
        here, (all_classes, used) = facts[name], classes(facts[name])
        k, columns = len(here["attributes"]), len(tables[name]["attributes"])
        text = f"{k} in the split files, {columns} in {tables[name]['table']}"
        says = f"{name}: {row['attributes']} attributes"
        found.append(_claim("Table 1", says, text, k == columns == row["attributes"]))
        sums = (
            f"{'+'.join(map(str, here['sizes']))} = {all_classes}, of which {used} occur in the lists known"
        )
        found.append(
            _claim("Table 1", f"{name}: {row['classes']} classes", sums, all_classes == row["classes"])
        )
        found += _images(name, row["images"], {s: of["count"] for s, of in here["splits"].items()})
    return found


def _images(name: str, printed: int, counts: dict[str, int]) -> list[dict]:
    """Table 1's images, where the lists tell: all splits known, or DARN's, whose valid and test are tenths."""
    says = f"{name}: {printed:,} images"
    if "train" in counts:
        total = sum(counts.values())
        text = f"{' + '.join(f'{n:,}' for n in counts.values())} ({', '.join(counts)}) = {total:,}"
        return [_claim("Table 1", says, text, total == printed)]
    if name != "DARN":
        return []
    text = (
        f"valid and test have {counts['valid']:,} and {counts['test']:,} images, a tenth each: of ASEN's release "
        f"({ASEN_DARN:,} // 10 = {ASEN_DARN // 10:,}), not of these ({printed // 10:,})"
    )
    return [_claim("Table 1", says, text, printed // 10 == counts["test"])]


def _of_gains(tables: dict) -> list[dict]:
    """Section 4.5: CCA over the best of what others published (rows with a source that is not a reproduction)."""
    found = []
    for dataset, said in {"FashionAI": 4.72, "DARN": 12.15, "DeepFashion": 1.4, "Zappos50K": 3.61}.items():
        ours = max(overall(tables, dataset, f"CCA (Type-{i})") for i in (1, 2))
        before = {
            m: overall(tables, dataset, m)
            for m, row in tables[dataset]["rows"].items()
            if row["source_ref"] is not None and not row["reproduced_by_paper"]
        }
        best = max(before, key=before.get)
        text = f"{ours:.2f} - {before[best]:.2f} ({best}) = {ours - before[best]:.2f}"
        found.append(_claim("section 4.5", f"{dataset}: +{said}", text, _equal(ours - before[best], said)))
    return found


def _of_best(tables: dict) -> list[dict]:
    """Section 4.5: the best result for every attribute, but for FashionAI's neck design."""
    found = []
    for dataset, but in {"FashionAI": ["neck_design"], "DARN": [], "DeepFashion": []}.items():
        rows = tables[dataset]["rows"]
        lost = []
        for attribute in tables[dataset]["attributes"]:
            best = max(rows, key=lambda method: rows[method]["per_attribute"][attribute])
            lost += [attribute] if not best.startswith("CCA") else []
        says = f"{dataset}: CCA is best for all attributes" + (f" except {but[0]}" if but else "")
        found.append(_claim("section 4.5", says, f"not best for: {', '.join(lost) or 'none'}", lost == but))
    return found


def _of_types(tables: dict) -> list[dict]:
    """Section 4.6: Type-2 over Type-1 on three data sets, Type-1 over Type-2 on the fourth, said in two ways."""
    found = []
    for dataset, said in {"FashionAI": 2.97, "DARN": 1.31, "DeepFashion": 0.4}.items():
        one, two = (overall(tables, dataset, f"CCA (Type-{i})") for i in (1, 2))
        text = f"{two:.2f} - {one:.2f} = {two - one:.2f}"
        found.append(
            _claim("section 4.6", f"{dataset}: Type-2 over Type-1 by +{said}", text, _equal(two - one, said))
        )
    one, two = (overall(tables, "Zappos50K", f"CCA (Type-{i})") for i in (1, 2))
    for said in (0.42, 0.13):
        alike = [
            m for m in tables["Zappos50K"]["rows"] if _equal(one - overall(tables, "Zappos50K", m), said)
        ]
        text = f"{one:.2f} - {two:.2f} = {one - two:.2f}"
        if "CCA (Type-2)" not in alike and alike:
            text += f"; {said} is Type-1's distance to {' and '.join(alike)}"
        found.append(
            _claim("section 4.6", f"Zappos50K: Type-1 over Type-2 by +{said}", text, _equal(one - two, said))
        )
    return found


def _of_backbones(tables: dict) -> list[dict]:
    """Section 4.6: ASEN beats CSN on the CNN and not on the ViT; CAMNet on DARN is below both."""
    named = ("FashionAI", "DARN", "DeepFashion", "Zappos50K")
    cnn = [overall(tables, d, "ASEN") - overall(tables, d, "CSN") for d in named]
    vit = [overall(tables, d, "TF-ASEN") - overall(tables, d, "TF-CSN") for d in named]
    text = (
        " ".join(f"{a:+.2f}" for a in cnn)
        + " on the CNN, "
        + " ".join(f"{a:+.2f}" for a in vit)
        + " on the ViT"
    )
    camnet, asen, csn = (overall(tables, "DARN", m) for m in ("CAMNet", "ASEN", "CSN"))
    return [
        _claim("section 4.6", "ASEN beats CSN on the CNN, not on the ViT", text, min(cnn) > 0 > max(vit)),
        _claim(
            "section 4.6",
            "CAMNet on DARN is below ASEN and CSN",
            f"{camnet:.2f}, {asen:.2f}, {csn:.2f}",
            camnet < min(asen, csn),
        ),
    ]


def _of_difficulty(tables: dict, random: dict) -> dict:
    """Section 4: the more attributes and classes in Table 1, the harder, as Tables 2-4 would show."""
    stats = {row["dataset"]: row for row in tables["statistics"]["rows"]}
    by = sorted(random, key=lambda d: stats[d]["attributes"])
    scores = [overall(tables, d, "CCA (Type-2)") for d in by]
    chance = {d: random[d]["overall"]["expected"] for d in by}
    text = "; ".join(
        f"{d}: {stats[d]['attributes']} attributes, {stats[d]['classes']} classes, CCA "
        f"{score:.2f}, random {chance[d]:.2f}"
        for d, score in zip(by, scores)
    )
    says = "difficulty increases with the number of attributes, and for higher classes"
    return _claim("section 4", says, text, scores == sorted(scores, reverse=True))


def _of_tf_asen(tables: dict, random: dict) -> dict:
    """Table 3: TF-ASEN is at the level of random rankings in all attributes but one."""
    printed = tables["DARN"]["rows"]["TF-ASEN"]["per_attribute"]
    over = {a: v - random["DARN"]["per_attribute"][a]["expected"] for a, v in printed.items()}
    above = [a for a, d in over.items() if d > 5]
    rest = [d for a, d in over.items() if a not in above]
    chance = random["DARN"]["overall"]
    near = f"{min(rest, default=0):+.2f} to {max(rest, default=0):+.2f}"
    text = (
        f"random rankings have {chance['expected']:.2f} ({chance['printed']:.2f} printed); {len(rest)} of "
        f"{len(over)} attributes are {near} from random; others: "
        + ", ".join(f"{a} {over[a]:+.2f}" for a in above)
    )
    return _claim(
        "Table 3", "TF-ASEN on DARN: 33.52, the result of a trained model", text, len(above) > len(over) / 2
    )


def _of_random(tables: dict, random: dict) -> dict:
    """Table 3's random row is off by whole points, each attribute to the second decimal."""
    off = [of["difference"] for of in random["DARN"]["per_attribute"].values()]
    text = (
        f"printed less expected: {' '.join(f'{round(d, 2) + 0.0:+.2f}' for d in off)}; each within "
        f"{max(abs(d - round(d)) for d in off):.2f} of a whole number"
    )
    return _claim("Table 3", "random baseline on DARN: 32.26", text, max(map(abs, off)) < 0.5)
