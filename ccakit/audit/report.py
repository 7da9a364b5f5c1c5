"""The audit in words: findings, and the tables for a terminal."""

from __future__ import annotations

from statistics import median

from ccakit.audit.images import PROBLEMS
from ccakit.audit.labels import NO_ANCHOR
from ccakit.data.text import count
from ccakit.text_table import text_table
from ccakit.training.pull import describe_shares

WORDS = {"outside": "behind links that lead out of the folder"}  # where the name of a problem is not enough
COPIES = {"same_content": "byte for byte", "same_pixels": "in every pixel, in files that differ"}
SHOWN = 5  # examples in a finding


def findings(result: dict, notes: list[str]) -> list[dict]:
    """List all that was found: {"kind", "breaks", "text"}. notes: the reader's own findings.

    breaks: training or evaluation would stop at it, or measure something else than they say.
    """
    found = [
        *_image_findings(result["images"]),
        *_leakage_findings(result),
        *_train_findings(result),
        *_pull_findings(result["pull"]),
        *_ranking_findings(result),
        *(_finding("lists", False, note) for note in notes),
    ]
    return sorted(found, key=lambda finding: not finding["breaks"])


def _finding(kind: str, breaks: bool, text: str, examples: list[str] | None = None) -> dict:
    """Make a finding, with the first few of its examples after the text."""
    if examples:
        text += f": {', '.join(examples[:SHOWN])}{', ...' if examples[SHOWN:] else ''}"
    return {"kind": kind, "breaks": breaks, "text": text}


def _image_findings(images: dict | None) -> list[dict]:
    if images is None:
        return []
    if images["none_here"]:
        listed = count(images["checked"], "image")
        text = f"none of {listed} is here: the lists stand alone (--no-images does not look)"
        return [_finding("missing", True, text)]
    found = []
    for kind in PROBLEMS:
        if bad := images[kind]:
            examples = [f"{image['path']} ({_where(image)})" for image in bad]
            text = f"{count(len(bad), 'image')} {WORDS.get(kind, kind)}"
            found.append(_finding(kind, True, text, examples))
    for kind, words in COPIES.items():
        if groups := images[kind]:
            copies = count(sum(map(len, groups)) - len(groups), "image is a copy", "images are copies")
            found.append(_finding(kind, False, f"{copies} of another {words}", _equal_images(groups)))
    if groups := images["conflicts"]:
        text = f"{count(len(groups), 'group')} of equal images labelled differently"
        found.append(_finding("conflict", False, text, _equal_images(groups)))
    return found


def _equal_images(groups: list[list[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]


def _where(image: dict) -> str:
    """The first line that lists an image, and what is wrong with it unless the finding says so already."""
    split, line = image["listed"][0]
    place = f"{split}, line {line}"
    return place if image["what"].startswith("is ") else f"{image['what']}; {place}"


def _leakage_findings(result: dict) -> list[dict]:
    found = []
    for pair, shared in result["leakage"].items():
        earlier, later = pair.split("/")
        for kind, images in shared.items():
            if images:
                text = f"{count(len(images), 'image')} of {later} in {earlier} too, by {kind}"
                examples = images if kind == "path" else _equal_images(images)
                found.append(_finding(f"leakage_{kind}", True, text, examples))
    for split, own in result["own_candidates"].items():
        if own:
            queries = count(len(own), "query finds itself", "queries find themselves")
            text = f"{split}: {queries} among the candidates"
            found.append(_finding("own_candidate", True, text, [pair["query"] for pair in own]))
    return found


def _train_findings(result: dict) -> list[dict]:
    """Values that are never an anchor's, and attributes without a triplet (all together break training)."""
    found, train = [], result["splits"].get("train")
    if train is None:
        return found
    for reason in NO_ANCHOR:
        values = [f"{v['attribute']} {v['value']}" for v in train["no_anchor"] if v["why"] == reason]
        if values:
            text = f"train: {count(len(values), 'value')} without an anchor and positive, {reason}"
            found.append(_finding("no_anchor", False, text, values))
    if names := train["no_triplet"]:
        breaks = len(names) == len(result["attributes"])
        found.append(_finding("no_triplet", breaks, f"train: no triplet exists of {', '.join(names)}"))
    return found


def _pull_findings(pull: dict | None) -> list[dict]:
    """Attributes that may starve; those that can have no triplet are a finding of their own."""
    if not pull or not pull["starving"]:
        return []
    text = f"train: {count(len(pull['starving']), 'attribute')} may starve, by the share of the pull"
    text += f" (an equal one is {100 / len(pull['shares']):.1f}%; --pull and --oversample change it)"
    starving = [f"{name} {100 * pull['shares'][name]:.2f}%" for name in pull["starving"]]
    return [_finding("starving", False, text, starving)]


def _ranking_findings(result: dict) -> list[dict]:
    """Queries without a relevant candidate, with the ceilings they set; queries for unseen values."""
    found, values = [], result["attributes"]
    for name, split in result["splits"].items():
        if split.get("unanswered"):
            asked = [
                f"{attribute} {values[attribute][label]} ({queries})"
                for attribute, counts in split["attributes"].items()
                for label, (queries, candidates) in enumerate(zip(counts["queries"], counts["candidates"]))
                if queries and not candidates
            ]
            verb = "has" if split["unanswered"] == 1 else "have"
            queries = f"{split['unanswered']} of {split['queries']} queries {verb} no relevant candidate"
            ceilings = f"{split['ceiling_weighted']:.2f}, its plain mean {split['ceiling_macro']:.2f}"
            text = f"{name}: {queries}: AP 0, so that overall mAP is at most {ceilings}"
            found.append(_finding("unanswered", False, text, asked))
        if unseen := split.get("unseen"):
            names = [f"{value['attribute']} {values[value['attribute']][value['label']]}" for value in unseen]
            queries = count(sum(value["queries"] for value in unseen), "query", "queries")
            text = f"{name}: {queries} for values that no training image has"
            found.append(_finding("unseen", False, text, names))
    return found


def table(result: dict) -> str:
    """Write the result of `audit` for a terminal."""
    blocks = [f"{result['name']} in {result['root']}"]
    if result["table1"]:
        blocks.append(_table1(result["table1"]))
    blocks.append(_splits(result["splits"]))
    blocks += [_attributes(name, split) for name, split in result["splits"].items()]
    if pull := result["pull"]:
        title = f"mode {pull['mode']}, pull {pull['pull']:g}, oversample {pull['oversample']:g}"
        blocks.append(f"{title}: {describe_shares(list(pull['shares']), list(pull['shares'].values()))}")
    return "\n\n".join([*blocks, _images(result["images"]), _findings(result)])


def _table1(beside: dict) -> str:
    rows = [[key, f"{here:,}", f"{beside['paper'][key]:,}"] for key, here in beside["here"].items()]
    return "\n".join(filter(None, [text_table([["", "here", "Table 1"], *rows]), beside["note"]]))


def _splits(splits: dict) -> str:
    counted = ("images", "labelled", "rows", "queries", "candidates", "unanswered")
    rows = [["split", *counted, "ceiling", "macro", "several"]]
    for name, split in splits.items():
        row = [name, *(str(split.get(key, "")) for key in counted)]
        if split["labels_only"]:
            row[1] = "-"
        means = [split.get(key) for key in ("ceiling_weighted", "ceiling_macro")]
        row += ["" if mean is None else f"{mean:.2f}" for mean in means]
        rows.append([*row, f"{split['several']['share']:.1f}%"])
    return (
        f"{text_table(rows)}\n"
        "ceiling, macro: the most that overall mAP (weighted by query; plain mean) can be, in percent\n"
        "several: rows whose image has several values of the attribute"
    )


def _attributes(name: str, split: dict) -> str:
    """Images per value of each attribute and, where the split is ranked, its queries and candidates."""
    ranked = "queries" in split
    rows = [[name, "values", "none", "one", "min", "median", "max"]]
    if ranked:
        rows[0] += ["queries", "candidates", "unanswered", "ceiling"]
    for attribute, counts in split["attributes"].items():
        images = counts["images"]
        row = [len(images), images.count(0), images.count(1), min(images), f"{median(images):g}", max(images)]
        if ranked:
            ceiling = "-" if counts["ceiling"] is None else f"{counts['ceiling']:.2f}"
            row += [sum(counts["queries"]), sum(counts["candidates"]), counts["unanswered"], ceiling]
        rows.append([attribute.replace("_", " "), *map(str, row)])
    return text_table(rows)


def _images(images: dict | None) -> str:
    if images is None:
        return "images: not looked at"
    if images["none_here"]:
        return f"images: none of {images['checked']} is here"
    looked = ", ".join(f"{n} {kind}" for kind, n in sorted(images["kinds"].items()))
    if sizes := images["sizes"]:
        least, most, middle = (f"{sizes[key][1]}x{sizes[key][0]}" for key in ("min", "max", "median"))
        looked += f"; sizes {least} to {most}, median {middle}"
    bad = ", ".join(f"{images[f'n_{kind}']} {kind}" for kind in PROBLEMS)
    return f"images: {images['checked']} looked at: {looked}\n        {bad}"


def _findings(result: dict) -> str:
    found = result["findings"]
    if not found:
        return "nothing found"
    breaks = sum(finding["breaks"] for finding in found)
    lines = [f"found: {len(found)}, of which {breaks} break training or evaluation (!)"]
    lines += [f"  {'!' if finding['breaks'] else '-'} {finding['text']}" for finding in found]
    return "\n".join(lines)
