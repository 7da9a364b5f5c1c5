"""A trained model on pictures of another size: finer heatmaps from the same weights."""

from __future__ import annotations

from dataclasses import replace

from ccakit.data.inputs import ImageInputs
from ccakit.data.transform import ImageTransform
from ccakit.evaluation.run import Run
from ccakit.models.registry import create_model
from ccakit.models.saved import SavedModel

POSITION = "trunk.position.pos_embed"


def takes_sizes(run: Run) -> bool:
    """Whether a run stands on a frozen vision transformer, which can be read at another size."""
    return run.saved.recipe.get("freeze") == "all" and POSITION in run.model.state_dict()


def at_size(run: Run, side: int, **weights) -> Run:
    """Open a run on pictures of `side` pixels, with the weights that it has.

    Its frozen vision transformer gets the positions of its pre-trained weights for the new grid, from where
    training found them; weights: pretrained and weights of `create_model`, to name others. ValueError for a
    trunk that was tuned, whose positions fit its own grid alone, and for weights that are not the run's.
    """
    if not takes_sizes(run):
        raise ValueError(f"{run.folder}: only a frozen vision transformer (--freeze all) takes another size")
    recipe, own = {**run.saved.recipe, "image_size": side}, run.model.state_dict()
    model = create_model(**recipe, **weights).eval()
    before = model.state_dict()
    frozen = [name for name in own if name.startswith("trunk.") and name != POSITION]
    if not all(own[name].equal(before[name]) for name in frozen):
        raise ValueError(f"{run.folder}: its trunk did not start from the weights that were found")
    model.load_state_dict({**own, POSITION: before[POSITION]})
    transform = ImageTransform.from_timm(model.trunk.pretrained_cfg)
    saved = SavedModel(model, run.attributes, transform, recipe)
    return replace(run, saved=saved, inputs=ImageInputs(run.split, transform))
