"""First phase: the tower learns the facts under every patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from training.reference.optimizer import build_optimizers
from training.reference_lm.clock import Budget, learning_rate
from training.reference_lm.facts import area_facts, patch_facts
from training.reference_lm.images import Canvases, EasyVqa, normalized
from training.reference_lm.log import Log
from training.reference_lm.probes import facts_beside, probe
from training.reference_lm.streams import SceneStream, run
from training.reference_lm.tower import (
    BLANK_WEIGHT,
    Tower,
    background_spread,
    class_attention_figures,
    telling_patches,
)
from vistrim.reference.lm.rendering import patch_areas

#: Share of the time in which background patches may still differ freely.
_FREE = 0.25
#: Share of the time in which scenes are as full as can be, and only `TowerSettings.patches` of each image are seen.
_PARTIAL = 0.85


@dataclass(frozen=True)
class TowerSettings:
    """Sizes and speed of the tower's training."""

    scenes: int = 176
    easy: int = 16
    patches: int = 128
    partial_level: str = "dense"
    lr: float = 3e-3
    workers: int = 0
    log_every: int = 100


def train_tower(
    tower: Tower,
    canvases: Canvases,
    easy: EasyVqa,
    settings: TowerSettings,
    budget: Budget,
    log: Log,
    start: int,
    save: Callable[[int], None],
) -> int:
    """Train until the budget is spent; returns the number of the next batch.

    ``save`` is called with it about once a minute.
    """
    device = next(tower.parameters()).device
    optimizers = build_optimizers(tower, settings.lr)
    step, saved = 0, budget.elapsed
    for batch in _batches(settings, device, budget, start):
        spent = budget.spent(step)
        rate = learning_rate(settings.lr, step, spent)
        images = torch.cat([canvases.scenes(batch["views"], batch["placed"]), easy.images(batch["easy"])])
        facts = torch.cat([patch_facts(batch["placed"]), easy.patch_facts(batch["easy"])])
        owners, areas = patch_areas(batch["placed"]), area_facts(batch["placed"])
        kept = None
        if spent < _PARTIAL:
            kept = telling_patches(torch.where(facts[..., 0] != 0, 0, -1), settings.patches)
            facts = facts.gather(1, kept[..., None].expand(-1, -1, facts.shape[-1]))
            owners = owners.gather(1, kept[: len(owners)])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            features, attention = tower(normalized(images), kept)
        blank = BLANK_WEIGHT * min(1.0, spent / _FREE)
        loss, parts = tower.loss(features, attention, facts, areas, owners, blank)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            # A gradient that is not finite would spoil every weight.
            if norm.isfinite():
                optimizer.step()
        step += 1
        if step in (1, 10, 50) or step % settings.log_every == 0:
            log.note(
                "tower",
                step=step,
                rate=step / budget.elapsed,
                lr=rate,
                loss=loss,
                parts=parts,
                norm=norm,
                right=tower.patch_accuracy(features[:, 1:], facts),
                spread=background_spread(features[:, 1:], facts[..., 0] != 0),
                attention=class_attention_figures(attention[: len(owners)], owners >= 0),
            )
        if budget.elapsed - saved > 60:
            saved = budget.elapsed
            save(start + step)
    return start + step


def _batches(settings: TowerSettings, device: torch.device, budget: Budget, start: int) -> Iterator[dict[str, Any]]:
    """Batches until the budget is spent: of the fullest scenes first, then of scenes as they are asked about."""
    step = 0
    for share, level in ((_PARTIAL, settings.partial_level), (1.0, "full")):
        stream = SceneStream(settings.scenes, settings.easy, level)
        for batch in run(stream.batch, device, settings.workers, start + step):
            if budget.spent(step) >= share:
                break
            yield batch
            step += 1


@torch.no_grad()
def tower_features(tower: Tower, images: torch.Tensor) -> torch.Tensor:
    """Features ``(B, 577, width)`` fp32 of uint8 images, without gradients."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.device.type == "cuda"):
        return tower(normalized(images))[0]


def probe_tower(tower: Tower, canvases: Canvases, batches: int, size: int, log: Log, probe_steps: int = 400) -> dict:
    """Fresh linear probes on validation scenes: patches on objects, and patches beside them."""
    device = next(tower.parameters()).device
    stream = SceneStream(size, 0, split="validation")
    inside, beside, attention = [], [], []
    for number, batch in zip(range(batches), run(stream.batch, device, 0), strict=False):
        facts = patch_facts(batch["placed"])
        images = canvases.scenes(batch["views"], batch["placed"])
        with (
            torch.no_grad(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"),
        ):
            features, seen = tower(normalized(images))
        patches, on_object = features[:, 1:], facts[..., 0] > 0
        near = facts_beside(facts)
        inside.append((patches[on_object], facts[on_object]))
        beside.append((patches[near[..., 0] > 0], near[near[..., 0] > 0]))
        attention.append(class_attention_figures(seen, on_object))
        if number == 0:
            log.note("probe", head=tower.patch_accuracy(patches, facts))
    figures = {
        name: probe(*(torch.cat(part) for part in zip(*pairs, strict=True)), steps=probe_steps)
        for name, pairs in (("on", inside), ("beside", beside))
    }
    figures["attention"] = {name: sum(a[name] for a in attention) / len(attention) for name in attention[0]}
    log.note("probe", **figures)
    return figures
