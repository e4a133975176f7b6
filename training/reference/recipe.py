"""The training recipe: the parts that are trained, their scenes, and the order.

Tower and decoder are trained separately and can run in parallel. Their interface are the ideal visual tokens, sums of
the word embeddings of the facts under each patch. The decoder learns to answer from ideal tokens, first with a third of
its layers (look-ups need few layers, and each step costs a third), then with all layers and fixed embeddings. Tower and
projector learn to produce these tokens from pixels. At the end all parts are trained together, last with easy-VQA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from vistrim.reference.tasks import SHORT_TASKS

Part = Literal["tower", "decoder", "layers", "projector", "sight", "all"]

#: Short tasks. Comparing and counting, which are learned last, occur twice.
HARD_TWICE = (*SHORT_TASKS, "count", "existence", "relation")


@dataclass(frozen=True)
class Stage:
    """One stage of the recipe.

    Parameters
    ----------
    name : str
        Also the name of its checkpoint.
    part : {"tower", "decoder", "layers", "projector", "sight", "all"}
        The part that is trained: the vision tower; the decoder with its embeddings; only its layers; the projector;
        tower and projector; all.
    level : str
        Difficulty of the scenes, a name in ``scenes.LEVELS``.
    steps, batch : int
        Optimizer steps, scenes per step.
    lr : float
        Peak learning rate: short warm-up, then constant, then linear decay over the last third.
    tasks : tuple of str
        Short tasks, which each scene cycles through from a random start.
    questions : int
        Short questions per scene.
    descriptions : float
        Share of the scenes that also ask for the description.
    background : int
        Background patches kept when training on ideal tokens, which are nearly all alike. Few of them make steps
        cheap. All of them are needed for counting on real images.
    easy_vqa : float
        Share of the steps on training images of easy-VQA instead of scenes.
    layers : int or None
        Decoder layers in use; None for all. The next stage starts the others as silent copies.
    lead : int
        Number of silent layers that the next stage inserts below those trained here.
    """

    name: str
    part: Part
    level: str
    steps: int
    batch: int = 32
    lr: float = 3e-3
    tasks: tuple[str, ...] = SHORT_TASKS
    questions: int = 12
    descriptions: float = 0.0
    background: int = 12
    easy_vqa: float = 0.0
    layers: int | None = None
    lead: int = 0


RECIPE: tuple[Stage, ...] = (
    Stage("tower", "tower", "several", steps=600),
    Stage("decoder-pair", "decoder", "pair", steps=200, layers=4),
    Stage("decoder-several", "decoder", "several", steps=400, questions=10, descriptions=0.5, layers=4),
    Stage("decoder-hard", "layers", "several", steps=200, lr=2e-3, tasks=HARD_TWICE, descriptions=0.3, layers=4),
    Stage("projector", "projector", "several", steps=150),
    Stage("sight", "sight", "several", steps=400, lr=1e-3),
    Stage("sight-full", "sight", "full", steps=900, lr=2e-3),
    Stage(
        "decoder-deep",
        "layers",
        "full",
        steps=150,
        batch=24,
        lr=1e-3,
        tasks=HARD_TWICE,
        descriptions=0.5,
        background=144,
        lead=3,
    ),
    Stage("together", "all", "full", steps=200, batch=16, lr=2.5e-4, tasks=HARD_TWICE, descriptions=0.5),
    Stage(
        "easy-vqa",
        "all",
        "full",
        steps=1500,
        batch=16,
        lr=6e-4,
        tasks=HARD_TWICE,
        descriptions=0.4,
        easy_vqa=0.4,
    ),
)

#: The small model has as many layers as the first decoder stage of the base model, so it is not deepened.
_SMALL_STEPS = {
    "tower": 350,
    "decoder-several": 400,
    "decoder-hard": 150,
    "projector": 100,
    "sight-full": 550,
    "together": 120,
    "easy-vqa": 2600,
}

RECIPES: dict[str, tuple[Stage, ...]] = {
    "base": RECIPE,
    "small": tuple(replace(stage, steps=_SMALL_STEPS[stage.name]) for stage in RECIPE if stage.name in _SMALL_STEPS),
}
