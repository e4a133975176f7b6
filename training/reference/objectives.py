"""Trained parts and losses of each stage of the recipe."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from training.reference.batches import IGNORED, Batch
from training.reference.learner import Learner, some_patches
from training.reference.recipe import Stage
from vistrim.reference.processing import GRID

#: Weights of the auxiliary losses relative to that of the answers.
SUBJECT_WEIGHT, TOWER_WEIGHT, TIE_WEIGHT = 0.3, 0.2, 0.2


def trained_parts(learner: Learner, stage: Stage) -> dict[str, nn.Module | nn.Parameter]:
    """The parts of a learner that a stage trains, by their prefix in the state dict."""
    core = learner.model.model
    tower: dict[str, nn.Module | nn.Parameter] = {
        "model.model.vision_tower": core.vision_tower,
        "patch_head": learner.patch_head,
        "scene_head": learner.scene_head,
    }
    projector = {"model.model.multi_modal_projector": core.multi_modal_projector}
    layers = {
        "model.model.language_model.layers": core.language_model.layers,
        "model.model.language_model.norm": core.language_model.norm,
    }
    words = {
        "model.model.language_model.embed_tokens": core.language_model.embed_tokens,
        "model.lm_head": learner.model.lm_head,
        "patch_positions": learner.patch_positions,
    }
    return {
        "tower": tower,
        "decoder": layers | words,
        "layers": layers,
        "projector": projector,
        "sight": tower | projector,
        "all": tower | projector | layers | words,
    }[stage.part]


def stage_loss(learner: Learner, stage: Stage, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Compute the loss of one step and the values to log."""
    if stage.part in ("decoder", "layers"):
        assert batch.facts is not None
        generator = torch.Generator().manual_seed(step)
        places = some_patches(batch.facts, stage.background, generator)
        ideal = learner.ideal_tokens(batch.facts)
        visual = ideal.gather(1, places[..., None].expand(-1, -1, ideal.shape[-1]))
        answers, subjects, right = learner.answer_loss(visual, places, batch)
        logged = {"answers": answers.item(), "subjects": subjects.item()}
        return answers + SUBJECT_WEIGHT * subjects, logged | task_accuracy(right, batch)
    assert batch.pixels is not None
    features = learner.features(batch.pixels)
    if batch.facts is None:
        answers, _, right = learner.answer_loss(learner.visual_tokens(features), _all_patches(features), batch)
        return answers, task_accuracy(right, batch)
    tower = learner.tower_loss(features, batch.facts)
    if stage.part == "tower":
        return tower, learner.patch_accuracy(features, batch.facts)
    visual = learner.visual_tokens(features)
    tie = learner.tie_loss(visual, batch.facts)
    if stage.part == "projector":
        return tie, {}
    if stage.part == "sight":
        return tower + tie, {"tie": tie.item()} | learner.patch_accuracy(features, batch.facts)
    answers, subjects, right = learner.answer_loss(visual, _all_patches(visual), batch)
    logged = {"answers": answers.item(), "tower": tower.item(), "tie": tie.item()}
    loss = answers + SUBJECT_WEIGHT * subjects + TOWER_WEIGHT * tower + TIE_WEIGHT * tie
    return loss, logged | task_accuracy(right, batch)


def _all_patches(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(GRID * GRID, device=rows.device).expand(len(rows), -1)


def task_accuracy(right: torch.Tensor, batch: Batch) -> dict[str, float]:
    """Share of the questions for which all tokens of the answer are correct, per task."""
    wrong = (batch.labels != IGNORED) & ~right
    hits: dict[str, list[bool]] = defaultdict(list)
    for row, tasks in enumerate(batch.tasks):
        missed = set(batch.segments[row][wrong[row]].tolist())
        for segment, task in enumerate(tasks, start=1):
            hits[task].append(segment not in missed)
    return {task: sum(values) / len(values) for task, values in sorted(hits.items())}
