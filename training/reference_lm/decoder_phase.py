"""Second phase: projector and adapter learn to answer from the frozen tower's features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn import functional as F

from training.reference_lm.clock import Budget, learning_rate
from training.reference_lm.decoder import Decoder, Weights
from training.reference_lm.facts import patch_facts
from training.reference_lm.images import Canvases, EasyVqa
from training.reference_lm.log import Log
from training.reference_lm.packing import IGNORED, PACKED, Wording, text_mask
from training.reference_lm.processes import Processes, sum_gradients
from training.reference_lm.projector import Projector, ideal_table, ideal_tokens, regression
from training.reference_lm.streams import TASK_NAMES, QuestionStream, SceneStream, run
from training.reference_lm.text import Answers, drift
from training.reference_lm.tower import Tower, telling_patches
from training.reference_lm.tower_phase import tower_features
from vistrim.reference.tasks import SHORT_TASKS

#: Levels of the curriculum, by the batch at which each begins.
CURRICULUM = ((0, "pair"), (40, "several"), (140, "full"))


@dataclass(frozen=True)
class DecoderSettings:
    """Sizes and speed of the decoder's training.

    In the share ``partial`` of the time the decoder sees ``patches`` visual tokens of each image, those on and beside
    objects first; text without image comes in every ``text_every``-th step. ``described`` is the share of the scenes
    that are also described, and ``words`` the number of questions for one word per scene, which goes through ``tasks``.
    """

    scenes: int = 28
    easy: int = 4
    length: int = 424
    texts: int = 12
    lr: float = 1e-3
    warm_up: int = 30
    described: float = 1.0
    words: int = 20
    tasks: tuple[str, ...] = SHORT_TASKS
    drift_weight: float = 1.0
    patches: int = 576
    partial: float = 0.0
    text_every: int = 1
    part: int = 32
    workers: int = 0
    log_every: int = 50


class Reader:
    """Tower, projector and decoder on packed questions."""

    def __init__(self, tower: Tower, projector: Projector, decoder: Decoder, wording: Wording) -> None:
        self.tower, self.projector, self.decoder, self.wording = tower, projector, decoder, wording

    def loss(
        self, images: torch.Tensor, batch: dict[str, Any], weights: Weights, kept: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the cross entropy of the answers, and ``(B, T)`` whether each answer token is predicted right."""
        answered = batch["labels"] != IGNORED
        logits = self.logits(images, batch, weights, kept)
        labels = batch["labels"][answered]
        right = torch.zeros_like(answered)
        right[answered] = logits.argmax(-1) == labels
        return F.cross_entropy(logits, labels, reduction="sum"), right

    def logits(
        self, images: torch.Tensor, batch: dict[str, Any], weights: Weights, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the answer tokens, row by row, fp32.

        With ``kept``, ``(B, K)`` ascending patch numbers, the decoder sees those visual tokens only, at the positions
        that they have in the whole image.
        """
        decoder, tokens = self.decoder, batch["tokens"]
        features = tower_features(self.tower, images)[:, 1:]
        whole = features.shape[1]
        places = torch.arange(whole, device=tokens.device).expand(len(tokens), -1)
        if kept is not None:
            features, places = features.gather(1, kept[..., None].expand(-1, -1, features.shape[-1])), kept
        visual = self.projector(features).to(decoder.dtype)
        prefix = torch.tensor(self.wording.prefix, device=tokens.device).expand(len(tokens), -1)
        before = prefix.shape[1]
        context = before + visual.shape[1]
        embeddings = torch.cat([decoder.embed(prefix), visual, decoder.embed(tokens)], 1)
        line = torch.arange(before, device=tokens.device).expand(len(tokens), -1)
        positions = torch.cat([line, before + places, before + whole + batch["offsets"]], 1)
        hidden = decoder(embeddings, positions, context, text_mask(batch["segments"], context), weights)
        return decoder.logits(hidden[:, context:][batch["labels"] != IGNORED])


def start_projector(
    projector: Projector, tower: Tower, decoder: Decoder, canvases: Canvases, tokenizer: Any, batches: int, size: int
) -> float:
    """Set the projector to the regression on ideal tokens; returns the share of variance that it explains."""
    device = next(tower.parameters()).device
    table = [t.to(device) for t in ideal_table(decoder.base.model.embed_tokens.weight, tokenizer)]

    def pairs() -> Any:
        for batch in islice(run(SceneStream(size, 0).batch, device, 0), batches):
            features = tower_features(tower, canvases.scenes(batch["views"], batch["placed"]))[:, 1:]
            yield features.flatten(0, 1), ideal_tokens(table, patch_facts(batch["placed"])).flatten(0, 1)

    weight, bias, explained = regression(pairs())
    projector.set_linear(weight, bias, torch.Generator().manual_seed(0))
    return explained


def accumulate(
    reader: Reader,
    images: torch.Tensor,
    batch: dict[str, Any],
    merged: list[tuple[torch.Tensor, ...]],
    kept: torch.Tensor | None,
    parts: Iterable[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of some images to those of the mean cross entropy over all answer tokens of the batch.

    ``parts`` are the numbers of the images that are processed at a time. Returns their share of the mean, and
    ``(B, T)`` whether each of their answer tokens is predicted right.
    """
    labels = batch["labels"]
    answered = (labels != IGNORED).sum()
    mean, right = torch.zeros((), device=images.device), torch.zeros_like(labels, dtype=torch.bool)
    for rows in parts:
        some = {name: batch[name][rows] for name in PACKED}
        loss, predicted = reader.loss(
            images[rows], some, reader.decoder.weights(merged), None if kept is None else kept[rows]
        )
        (loss / answered).backward()
        mean += loss.detach() / answered
        right[rows] = predicted
    return mean, right


def task_accuracy(right: torch.Tensor, batch: dict[str, Any]) -> dict[str, list[bool]]:
    """Per task, for each of its questions whether every token of the answer is right: greedy decoding would say it."""
    hits: dict[str, list[bool]] = defaultdict(list)
    answered = batch["labels"] != IGNORED
    segments = torch.where(answered, batch["segments"], 0).cpu()
    wrong = torch.where(answered & ~right, batch["segments"], 0).cpu()
    for row, tasks in enumerate(batch["tasks"].tolist()):
        packed, missed = set(segments[row].tolist()), set(wrong[row].tolist())
        for segment, task in enumerate(tasks, start=1):
            if segment in packed:
                hits[TASK_NAMES[task]].append(segment not in missed)
    return hits


def shares(hits: dict[str, list[bool]]) -> dict[str, float]:
    return {task: sum(values) / len(values) for task, values in sorted(hits.items())}


def train_decoder(
    reader: Reader,
    canvases: Canvases,
    easy: EasyVqa,
    texts: Answers,
    settings: DecoderSettings,
    budget: Budget,
    log: Log,
    start: int,
    save: Callable[[int], None],
    processes: Processes,
) -> int:
    """Train until the budget is spent; returns the number of the next batch.

    ``save`` is called with it about once a minute.
    """
    device = texts.tokens.device
    parameters = [*reader.projector.parameters(), *reader.decoder.down.values(), *reader.decoder.up.values()]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=device.type == "cuda"
    )
    stream = QuestionStream(
        reader.wording,
        settings.scenes,
        settings.easy,
        settings.length,
        settings.tasks,
        settings.described,
        settings.words,
        levels=CURRICULUM,
    )
    step, saved = 0, budget.elapsed
    hits: dict[str, list[bool]] = defaultdict(list)
    for batch in run(stream.batch, device, settings.workers, start):
        spent = processes.agree(budget.spent(step))
        if spent >= 1:
            break
        images = torch.cat([canvases.scenes(batch["views"], batch["placed"]), easy.images(batch["easy"])])
        kept = None
        if spent < settings.partial:
            facts = torch.cat([patch_facts(batch["placed"]), easy.patch_facts(batch["easy"])])
            kept = telling_patches(torch.where(facts[..., 0] != 0, 0, -1), settings.patches).sort(-1).values
        optimizer.zero_grad()
        merged = reader.decoder.merged()
        parts = torch.arange(len(images), device=device).split(settings.part)
        told = step % settings.text_every == 0
        answers, away = torch.zeros((), device=device), torch.zeros((), device=device)
        right = torch.zeros_like(batch["labels"], dtype=torch.bool)
        for number in processes.share(start + step, len(parts) + told):
            if number == len(parts):
                rows = torch.randint(
                    len(texts), (settings.texts,), generator=torch.Generator().manual_seed(start + step)
                )
                away = drift(reader.decoder, reader.decoder.weights(merged), texts.some(rows.to(device)))
                (settings.drift_weight * away).backward()
                away = away.detach()
            else:
                loss, predicted = accumulate(reader, images, batch, merged, kept, [parts[number]])
                answers, right = answers + loss, right | predicted
        sum_gradients(processes, parameters)
        processes.sum([answers, away, right])
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        rate = learning_rate(settings.lr, step, spent, settings.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # A gradient that is not finite would spoil every weight.
        if norm.isfinite():
            optimizer.step()
        step += 1
        if step % 5 == 0 or step == 1:
            for task, values in task_accuracy(right, batch).items():
                hits[task].extend(values)
        if step in (1, 5, 20) or step % settings.log_every == 0:
            log.note(
                "decoder",
                step=step,
                level=stream.level(start + step - 1),
                rate=step / budget.elapsed,
                lr=rate,
                loss=answers,
                drift=away,
                norm=norm,
                right=shares(hits),
            )
            hits.clear()
        if budget.elapsed - saved > 60:
            saved = budget.elapsed
            save(start + step)
    return start + step


@torch.no_grad()
def validate(reader: Reader, canvases: Canvases, texts: Answers, batches: int, size: int, workers: int) -> dict:
    """Share of validation questions answered right, word by word, per task; and the drift on held-out prompts."""
    device = texts.tokens.device
    stream = QuestionStream(
        reader.wording, size, 0, 640, SHORT_TASKS, words=len(SHORT_TASKS), sentences=5, nothing=0.0, split="validation"
    )
    hits: dict[str, list[bool]] = defaultdict(list)
    tokens = []
    weights = reader.decoder.weights()
    for batch in islice(run(stream.batch, device, workers), batches):
        _, right = reader.loss(canvases.scenes(batch["views"], batch["placed"]), batch, weights)
        for task, values in task_accuracy(right, batch).items():
            hits[task].extend(values)
        tokens.append(right[batch["labels"] != IGNORED].float().mean())
    away = torch.stack(
        [drift(reader.decoder, weights, texts.some(part)) for part in torch.arange(len(texts)).to(device).split(16)]
    )
    return {"right": shares(hits), "tokens": torch.stack(tokens).mean().item(), "drift": away.mean().item()}
