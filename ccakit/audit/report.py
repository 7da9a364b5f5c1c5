"""The audit in words: findings, and the table for a terminal."""

from __future__ import annotations

from ccakit.data.text import count

SAYS = {
    "missing": "missing",
    "outside": "links that lead out of the folder",
    "empty": "empty",
    "truncated": "truncated",
    "unreadable": "unreadable",
}
SHOWN = 5  # examples a finding names


def findings(result: dict, notes: list[str]) -> list[dict]:
    """All that was found: {"kind", "breaks", "text"}. `notes`: what else the reader had to say.

    breaks: training or evaluation would stop at it, or measure something else than it says.
    """
    found = [*_of_images(result["images"]), *_of_leakage(result), *_of_splits(result)]
    found += [_found("lists", False, note) for note in notes]
    return sorted(found, key=lambda each: not each["breaks"])


def _found(kind: str, breaks: bool, text: str) -> dict:
    return {"kind": kind, "breaks": breaks, "text": text}


def _some(texts: list[str]) -> str:
    """The first few of them, for people."""
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")


def _of_images(images: dict | None) -> list[dict]:
    if images is None:
        return []
    if images["none_here"]:
        text = f"none of {count(images['checked'], 'image')} is here: the lists stand alone (--no-images does not look)"
        return [_found("missing", True, text)]
    found = []
    for kind, words in SAYS.items():
        if images[kind]:
            named = _some([f"{each['path']} ({_place(each)})" for each in images[kind]])
            found.append(_found(kind, True, f"{count(len(images[kind]), 'image')} {words}: {named}"))
    for kind, words in (
        ("same_content", "byte for byte"),
        ("same_pixels", "in every pixel, in files that differ"),
    ):
        if groups := images[kind]:
            more = sum(map(len, groups)) - len(groups)
            text = f"{count(more, 'image is a copy', 'images are copies')} of another {words}: "
            found.append(_found(kind, False, text + _some([" = ".join(group) for group in groups])))
    if images["conflicts"]:
        text = f"{count(len(images['conflicts']), 'group')} of equal images labelled differently: "
        found.append(
            _found("conflict", False, text + _some([" = ".join(group) for group in images["conflicts"]]))
        )
    return found


def _place(each: dict) -> str:
    split, line = each["listed"][0]
    return (
        f"{each['what']}; {split}, line {line}"
        if each["what"].split()[0] != "is"
        else f"{split}, line {line}"
    )


def _of_leakage(result: dict) -> list[dict]:
    found = []
    for pair, shared in result["leakage"].items():
        for kind, images in shared.items():
            if images:
                named = _some([image if kind == "path" else " = ".join(image) for image in images])
                one, other = pair.split("/")
                text = f"{count(len(images), 'image')} of {other} in {one} too, by {kind}: {named}"
                found.append(_found(f"leakage_{kind}", True, text))
    for split, own in result["own_candidates"].items():
        if own:
            text = f"{split}: {count(len(own), 'query finds itself', 'queries find themselves')} among the candidates: "
            found.append(_found("own_candidate", True, text + _some([each["query"] for each in own])))
    return found


def _of_splits(result: dict) -> list[dict]:
    found, train = [], result["splits"].get("train")
    if train:
        for why in ("no image", "one image", "every labelled image has it"):
            values = [
                f"{each['attribute']} {each['value']}" for each in train["no_anchor"] if each["why"] == why
            ]
            if values:
                text = f"train: {count(len(values), 'value')} without an anchor and positive, {why}: {_some(values)}"
                found.append(_found("no_anchor", False, text))
        if train["no_triplet"]:
            every = len(train["no_triplet"]) == len(result["attributes"])
            found.append(
                _found("no_triplet", every, f"train: no triplet exists of {_some(train['no_triplet'])}")
            )
    for name, split in result["splits"].items():
        if split.get("unanswered"):
            found.append(_found("unanswered", False, _unanswered(name, split, result["attributes"])))
        if unseen := split.get("unseen"):
            values = [
                f"{each['attribute']} {result['attributes'][each['attribute']][each['label']]}"
                for each in unseen
            ]
            asked = sum(each["queries"] for each in unseen)
            text = f"{name}: {count(asked, 'query', 'queries')} for values that no training image has: {_some(values)}"
            found.append(_found("unseen", False, text))
    return found


def _unanswered(name: str, split: dict, values: dict[str, list[str]]) -> str:
    """The queries without a relevant candidate, the ceilings they set, and the values they ask for."""
    asked = [
        f"{attribute} {values[attribute][label]} ({q})"
        for attribute, of in split["attributes"].items()
        for label, (q, c) in enumerate(zip(of["queries"], of["candidates"]))
        if q and not c
    ]
    one, several = (f"of {split['queries']} queries {has} no relevant candidate" for has in ("has", "have"))
    ceilings = f"{split['ceiling_weighted']:.2f}, its plain mean {split['ceiling_macro']:.2f}"
    return (
        f"{name}: {count(split['unanswered'], one, several)}: AP 0, so that overall mAP is at most "
        f"{ceilings}: {_some(asked)}"
    )


def table(result: dict) -> str:
    """What `ccakit audit` prints, from the result of `audit`."""
    blocks = [[f"{result['name']} in {result['root']}"], _table1(result["table1"]), _splits(result["splits"])]
    blocks += [_attributes(name, split) for name, split in result["splits"].items()]
    blocks += [_images(result["images"]), _findings(result)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table1(beside: dict | None) -> list[str]:
    if beside is None:
        return []
    rows = [f"{key:<12}{beside['here'][key]:>10,}{beside['paper'][key]:>10,}" for key in beside["here"]]
    note = [beside["note"]] if beside["note"] else []
    return [f"{'':<12}{'here':>10}{'Table 1':>10}", *rows, *note]


def _splits(splits: dict) -> list[str]:
    lines = [
        f"{'split':<8}{'images':>9}{'labelled':>9}{'rows':>9}{'queries':>9}{'candidates':>11}{'unanswered':>11}"
        f"{'ceiling':>9}{'macro':>8}{'several':>9}"
    ]
    for name, of in splits.items():
        ranked = (
            f"{of['queries']:>9}{of['candidates']:>11}{of['unanswered']:>11}{of['ceiling_weighted']:>9.2f}"
            f"{of['ceiling_macro']:>8.2f}"
            if "queries" in of
            else " " * 48
        )
        images = "-" if of["labels_only"] else of["images"]
        lines.append(
            f"{name:<8}{images:>9}{of['labelled']:>9}{of['rows']:>9}{ranked}{of['several']['share']:>8.1f}%"
        )
    return [
        *lines,
        "ceiling, macro: the most that overall mAP (weighted by query; plain mean) can be, in percent",
        "several: rows whose image has several values of the attribute",
    ]


def _attributes(name: str, split: dict) -> list[str]:
    ranked = "queries" in split
    head = f"{name:<20}{'values':>7}{'none':>6}{'one':>6}{'min':>7}{'median':>8}{'max':>7}"
    lines = [head + (f"{'queries':>9}{'candidates':>11}{'unanswered':>11}{'ceiling':>9}" if ranked else "")]
    for attribute, of in split["attributes"].items():
        n = sorted(of["images"])
        line = f"{attribute.replace('_', ' '):<20}{len(n):>7}{n.count(0):>6}{n.count(1):>6}{n[0]:>7}"
        line += f"{(n[(len(n) - 1) // 2] + n[len(n) // 2]) / 2:>8g}{n[-1]:>7}"
        if ranked:
            ceiling = "-" if of["ceiling"] is None else f"{of['ceiling']:.2f}"
            line += f"{sum(of['queries']):>9}{sum(of['candidates']):>11}{of['unanswered']:>11}{ceiling:>9}"
        lines.append(line)
    return lines


def _images(images: dict | None) -> list[str]:
    if images is None:
        return ["images: not looked at"]
    if images["none_here"]:
        return [f"images: none of {images['checked']} is here"]
    bad = ", ".join(f"{images['n_' + kind]} {kind}" for kind in SAYS)
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(images["kinds"].items()))
    size = images["sizes"] and "; sizes {} to {}, median {}".format(
        *("x".join(map(str, images["sizes"][each][::-1])) for each in ("min", "max", "median"))
    )
    return [f"images: {images['checked']} looked at: {kinds}{size or ''}", f"        {bad}"]


def _findings(result: dict) -> list[str]:
    if not result["findings"]:
        return ["nothing found"]
    breaks = result["breaks"] if "breaks" in result else sum(each["breaks"] for each in result["findings"])
    lines = [f"found: {len(result['findings'])}, of which {breaks} break training or evaluation (!)"]
    return lines + [f"  {'!' if each['breaks'] else '-'} {each['text']}" for each in result["findings"]]
