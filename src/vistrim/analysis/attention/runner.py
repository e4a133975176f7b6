"""``vistrim.analyze``: analyze a model's attention question by question, and resume an interrupted run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistrim._utils.store import Store
from vistrim.analysis.attention.names import NOTHING_STAYS, RANKINGS
from vistrim.analysis.attention.own_answers import OwnAnswers, next_token_divergence, own_answers
from vistrim.analysis.attention.rankings import GivenRanking, scores_of
from vistrim.analysis.attention.reading import Reading, read_attention
from vistrim.analysis.attention.record import plain, record
from vistrim.analysis.attention.report import Analysis
from vistrim.engine.single_pass import untrimmed
from vistrim.errors import ResumeError
from vistrim.evaluation.items import Item
from vistrim.evaluation.runner import batches
from vistrim.loading import identity
from vistrim.prompting import check_context, format_conversations, user_turn
from vistrim.trimming import trim

SAMPLES = "samples.jsonl"
"""Name of the file of records in the output folder."""
MOST_LAYERS = 12
"""Largest number of layers whose rankings are tried by default."""


def analyze(
    model: Any,
    processor: Any,
    items: Sequence[Item],
    *,
    out: str | Path | None = None,
    keep: float = 0.25,
    layers: Sequence[int] | None = None,
    rankings: Sequence[str] = RANKINGS,
    batch_size: int = 8,
    max_new_tokens: int = 160,
    seed: int = 0,
    advance: Callable[[float], None] = lambda questions: None,
) -> Analysis:
    """Analyze the attention of the untouched model, and the quality of its layers' rankings of visual tokens.

    Every ranking is tested by really cutting: its best visual tokens stay, and the model's predictions are compared
    with its predictions on all tokens.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them. The model must not be trimmed at the time.
    items : sequence of Item
        Questions about images; correct answers are not needed. Adjacent questions of one task share a batch.
    out : str or Path, optional
        Folder in which the results of every question are saved. An interrupted analysis resumes from it.
    keep : float
        Share of the visual tokens that is called the top, and that stays when rankings are tried, in (0, 1).
    layers : sequence of int, optional
        Layers whose rankings are tried, from 0 to the last but one. The cut is made before the following layer. By
        default all, or `MOST_LAYERS` of them, evenly spaced.
    rankings : sequence of str
        Some of `vistrim.analysis.attention.RANKINGS`; none are tried if it is empty.
    batch_size : int
        Questions per batch.
    max_new_tokens : int
        Longest answer, in tokens.
    seed : int
        Seed of random rankings.
    advance : callable
        Called with the number of questions' worth of work just done, including those already in ``out``.

    Returns
    -------
    Analysis
        Its ``figures`` are plain numbers; ``write`` writes the same files as ``vistrim analyze``.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed, or its attention cannot be read.
    ValueError
        If there is no question, or an argument is out of range.
    ResumeError
        If ``out`` has records of another model, with other settings, or of other questions with the same id.
    PromptError
        If prompt and answer do not fit into the model's context.

    Examples
    --------
    >>> found = vistrim.analyze(model, processor, items)
    >>> found.figures["groups"]["all"]["on_visual"]["last"]
    """
    depth = untrimmed(model).decoder_shape.layers
    chosen = _Chosen(keep, _layers(layers, depth), tuple(dict.fromkeys(rankings)), max_new_tokens, seed)
    chosen.check(items, batch_size)
    settings = {
        **identity(model, processor),
        "keep": keep,
        "layers": list(chosen.layers),
        "rankings": list(chosen.rankings),
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    with Store(Path(out) / SAMPLES if out is not None else None, settings, ("item",), dict) as store:
        for batch in batches(items, batch_size):
            missing = [item for item in batch if not _known(store, item)]
            advance(len(batch) - len(missing))
            if missing:
                others = [_other_question(item, items) for item in missing]
                store.put(_batch(model, processor, missing, others, chosen, advance))
        return Analysis.of([store.rows[item.id,] for item in items if (item.id,) in store.rows], settings)


@dataclass(frozen=True)
class _Chosen:
    keep: float
    layers: tuple[int, ...]
    rankings: tuple[str, ...]
    max_new_tokens: int
    seed: int

    @property
    def cuts(self) -> list[tuple[int, str]]:
        return [(layer, ranking) for layer in self.layers for ranking in self.rankings]

    def check(self, items: Sequence[Item], batch_size: int) -> None:
        if not isinstance(self.keep, float) or not 0 < self.keep < 1:
            raise ValueError(f"keep={self.keep}: must be a share of the visual tokens, between 0 and 1")
        if unknown := [name for name in self.rankings if name not in RANKINGS]:
            raise ValueError(f"no ranking {unknown[0]!r}: choose from {', '.join(RANKINGS)}")
        if not items:
            raise ValueError("there are no questions to analyze: pass one or more items")
        if batch_size < 1 or self.max_new_tokens < 1:
            raise ValueError("batch_size and max_new_tokens must be at least 1")


def _layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    if layers is None:
        several = min(depth - 1, MOST_LAYERS)
        return tuple(dict.fromkeys(round(i * (depth - 2) / max(1, several - 1)) for i in range(several)))
    if wrong := [layer for layer in layers if not 0 <= layer < depth - 1]:
        raise ValueError(
            f"layer {wrong[0]} cannot be tried: the model has {depth} layers, and the cut is made before the following "
            f"layer, so choose from 0 to {depth - 2}"
        )
    return tuple(sorted(set(layers)))


def _known(store: Store[dict[str, Any]], item: Item) -> bool:
    found = store.rows.get((item.id,))
    if found is not None and found["prompt"] != item.prompt:
        raise ResumeError(f"the folder has results for another question with the id {item.id}: give another folder")
    return found is not None


def _other_question(item: Item, items: Sequence[Item]) -> str | None:
    # The next different question (cyclically); None if all questions are the same.
    place = next(i for i, one in enumerate(items) if one.id == item.id)
    following = (*items[place:], *items[:place])
    return next((one.prompt for one in following if one.prompt != item.prompt), None)


def _batch(
    model: Any,
    processor: Any,
    items: list[Item],
    others: list[str | None],
    chosen: _Chosen,
    advance: Callable[[float], None],
) -> list[dict[str, Any]]:
    shown = [item.shown() for item in items]
    passes = 2 + len(chosen.cuts)

    def prompts(questions: Sequence[str]) -> Any:
        turns = [[user_turn(question, parts)] for question, parts in zip(questions, shown, strict=True)]
        inputs = format_conversations(processor, turns)
        check_context(model, inputs, chosen.max_new_tokens)
        return inputs.to(model.device, dtype=model.dtype)

    own = own_answers(model, prompts([item.prompt for item in items]), chosen.max_new_tokens)
    read, logits = read_attention(model, own, chosen.keep)
    advance(len(items) / passes)
    other = None
    if all(question is not None for question in others):
        other = _under_other_questions(model, prompts([question or "" for question in others]), read, chosen.keep)
    advance(len(items) / passes)
    values = [_tried(chosen) for _ in items]
    for number, ranking, divergence, same in _cuts(model, own, read, logits, items, chosen):
        for sample, n in enumerate(own.lengths.tolist()):
            into = values[sample][ranking]
            into["first"][number] = plain(divergence[sample, 0].item())
            into["mean"][number] = plain(divergence[sample, :n].mean().item())
            into["kept"][number] = int(same[sample, :n].all())
        advance(len(items) / passes)
    tokens = own.tokens.masked_fill(~own.counted, processor.tokenizer.pad_token_id or 0)
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    return [
        {
            "item": item.id,
            "task": item.task.name,
            "group": item.task.group,
            "prompt": item.prompt,
            "other_prompt": others[sample],
            "answer": texts[sample].strip(),
            "answer_tokens": n,
            "visual_tokens": int(read.visual[sample].sum()),
            **record(read, sample, n, other),
            "rankings": values[sample],
        }
        for sample, (item, n) in enumerate(zip(items, own.lengths.tolist(), strict=True))
    ]


def _tried(chosen: _Chosen) -> dict[str, dict[str, list[Any]]]:
    figures = ("first", "mean", "kept")
    return {name: {figure: [None] * len(chosen.layers) for figure in figures} for name in chosen.rankings}


def _under_other_questions(model: Any, inputs: Any, read: Reading, keep: float) -> Reading | None:
    # The same images with other questions; None if these change the number of visual tokens.
    ids = inputs["input_ids"]
    nothing = OwnAnswers(dict(inputs), ids.shape[1], ids[:, -1:], torch.ones_like(ids[:, -1:], dtype=torch.bool))
    found, _ = read_attention(model, nothing, keep)
    return found if torch.equal(found.visual.sum(1), read.visual.sum(1)) else None


@torch.no_grad()
def _cuts(
    model: Any, own: OwnAnswers, read: Reading, logits: Tensor, items: Sequence[Item], chosen: _Chosen
) -> Iterator[tuple[int, str, Tensor, Tensor]]:
    # Really cut, by every ranking of every layer; yields layer index, ranking, divergences and equal predictions.
    names = [item.id for item in items]
    for number, layer in enumerate(chosen.layers):
        for ranking in chosen.rankings:
            share = 0.0 if ranking == NOTHING_STAYS else chosen.keep
            scores = scores_of(ranking, layer, read, names, chosen.seed, share)
            with trim(model, GivenRanking(layer + 1, share, scores)):
                logits_trimmed = own.predicted(model(**own.arguments()))
            divergence, same = next_token_divergence(logits, logits_trimmed)
            yield number, ranking, divergence.cpu(), same.cpu()
