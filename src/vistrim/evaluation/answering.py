"""Greedy answers to a batch of items, untouched or trimmed, and their costs."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import torch

from vistrim.core.costs import prefill_flops, vision_flops
from vistrim.core.layout import Picture
from vistrim.engine import ModelSpec, describe
from vistrim.engine.report.untrimmed import UntrimmedCache
from vistrim.evaluation.item_prompts import format_items
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Answer
from vistrim.methods import Method
from vistrim.prompting import check_context
from vistrim.trimming import trim


def answer(
    model: Any,
    processor: Any,
    items: Sequence[Item],
    method: Method | None,
    max_new_tokens: int,
    generation: Mapping[str, Any] | None = None,
) -> list[Answer]:
    """Answer a batch of items.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    items : sequence of Item
        Items, answered in one batch.
    method : Method or None
        Method to trim with; None for the untouched model.
    max_new_tokens : int
        Longest answer, in tokens.
    generation : mapping, optional
        Further settings of ``generate``, such as ``{"do_sample": True, "temperature": 0.5}``. Answers are greedy by
        default.

    Returns
    -------
    list of Answer
        In the order of ``items``.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    PromptError
        If prompt and answer do not fit into the model's context, or there is a video and the processor takes none.
    """
    inputs = format_items(processor, items)
    check_context(model, inputs, max_new_tokens)
    return answer_inputs(model, processor, inputs, method, max_new_tokens=max_new_tokens, **(generation or {}))


@torch.no_grad()
def answer_inputs(
    model: Any, processor: Any, inputs: Any, method: Method | None, *, max_new_tokens: int, **settings: Any
) -> list[Answer]:
    """Answer a batch of prompts.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    inputs : BatchFeature
        Prompts as the processor returns them, padded on the left.
    method : Method or None
        Method to trim with; None for the untouched model.
    max_new_tokens : int
        Longest answer, in tokens.
    **settings
        Further settings of ``model.generate``. By default, answers are greedy.

    Returns
    -------
    list of Answer
        One per prompt.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model or the generation settings are not supported.
    """
    spec = describe(model)
    inputs = inputs.to(model.device, dtype=model.dtype)
    prompts = inputs["attention_mask"].sum(1).tolist()
    generate = {"do_sample": False, "num_beams": 1, "use_cache": True, "max_new_tokens": max_new_tokens} | settings
    untrimmed, vision = UntrimmedCache(spec), _vision_flops(spec, inputs, len(prompts))
    if method is None:
        sequences = model.generate(**inputs, **generate)
        visual = (
            torch.isin(inputs["input_ids"], torch.tensor([*spec.visual_token_ids.values()], device=model.device))
            .sum(1)
            .tolist()
        )
        layers = [visual] * spec.decoder_shape.layers
        flops, method_flops = [_full_flops(spec, length) for length in prompts], [0] * len(prompts)
        steps = range(sequences.shape[1] - inputs["input_ids"].shape[1])
        held = [[untrimmed.tokens(length + step) for length in prompts] for step in steps]
        exited = [False] * len(prompts)
    else:
        with trim(model, method) as run:
            sequences = model.generate(**inputs, **generate)
        report = run.report
        visual, layers, held = report.visual_tokens, report.visual_tokens_per_layer, report.kv_tokens_per_step
        flops, method_flops, exited = report.prefill_flops_per_sample, report.method_flops, report.exited
    tokens = sequences[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    padding = processor.tokenizer.pad_token_id if "stopping_criteria" in settings else None
    ends = _ends(tokens, model.generation_config.eos_token_id, padding)
    return [
        Answer(
            answer=text.strip(),
            new_tokens=length,
            ended=ended,
            prompt_tokens=prompts[b],
            visual_tokens=visual[b],
            average_tokens=mean(layer[b] for layer in layers),
            prefill_flops=flops[b],
            prefill_flops_full=_full_flops(spec, prompts[b]),
            method_flops=method_flops[b],
            vision_flops=0 if exited[b] else vision,
            # The first pass is the prefill; the last token is never stored.
            **_cache_costs([0] * length if exited[b] else [step[b] for step in held[:length]], prompts[b], untrimmed),
            exited=exited[b],
        )
        for b, (text, (length, ended)) in enumerate(zip(texts, ends, strict=True))
    ]


def _vision_flops(spec: ModelSpec, inputs: Mapping[str, Any], samples: int) -> int | None:
    """FLOPs of encoding the image of a sample; None if images may differ in size, or be cut into tiles."""
    grid, cost, pixels = spec.images.grid, spec.images.cost, inputs.get("pixel_values")
    has_videos = inputs.get("pixel_values_videos") is not None
    if grid is None or cost is None or pixels is None or has_videos or pixels.dim() != 4 or len(pixels) != samples:
        return None
    return vision_flops(cost, [Picture.of(grid)])


def _full_flops(spec: ModelSpec, length: int) -> int:
    return prefill_flops(spec.decoder_shape, [length] * spec.decoder_shape.layers)


def _cache_costs(held: Sequence[int], prompt: int, untrimmed: UntrimmedCache) -> dict[str, float]:
    full = [untrimmed.tokens(prompt + step) for step in range(len(held))]
    return {
        "kv_mean": mean(a / b for a, b in zip(held, full, strict=True)),
        # If layers differ in size, a token counts with its average size.
        "kv_bytes_peak": max(held) * untrimmed.nbytes(prompt + len(held) - 1) / full[-1],
        "kv_bytes_full": untrimmed.nbytes(prompt + len(held) - 1),
    }


def _ends(tokens: torch.Tensor, end: int | list[int] | None, padding: int | None) -> list[tuple[int, bool]]:
    """Generated tokens of each sample up to its end-of-sequence token, and whether there is one.

    ``padding`` is the token behind answers that a stopping criterion ended.
    """
    ends = torch.tensor([] if end is None else end, dtype=tokens.dtype, device=tokens.device).reshape(-1)
    found = torch.isin(tokens, ends)
    lengths = (found.cumsum(1) == 0).sum(1) + 1
    if padding is not None:
        behind = (tokens == padding).long().flip(1).cumprod(1).sum(1)
        lengths = torch.where(found.any(1), lengths, tokens.shape[1] - behind)
    lengths = lengths.clamp(1, tokens.shape[1])
    return list(zip(lengths.tolist(), found.any(1).tolist(), strict=True))
