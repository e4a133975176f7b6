"""Greedy answers to a batch of items, untouched or trimmed, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vistrim.architectures import discover
from vistrim.core.costs import prefill_flops, vision_flops
from vistrim.engine.report import TrimReport
from vistrim.methods import Method
from vistrim.prompting import format_prompts
from vistrim.reference.items import Item
from vistrim.trimming import trim


@dataclass(frozen=True)
class Answer:
    """The answer to one item; the costs are explained at `vistrim.evaluation.records.Sample`."""

    text: str
    new_tokens: int
    costs: dict[str, float]


@torch.no_grad()
def answer(
    model: Any, processor: Any, items: Sequence[Item], method: Method | None, max_new_tokens: int
) -> list[Answer]:
    """Answer a batch of items.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    items : sequence of Item
        Answered in one batch.
    method : Method or None
        How to trim; None leaves the model alone.
    max_new_tokens : int
        Longest answer.

    Raises
    ------
    UnsupportedModelError, UnsupportedGenerationError
        If the model cannot be trimmed (this way).
    """
    inputs = format_prompts(processor, [item.prompt for item in items], [[item.image()] for item in items])
    inputs = inputs.to(model.device, dtype=model.dtype)
    generate = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
    generate |= {"use_cache": True, "return_dict_in_generate": True}
    if method is None:
        output = model.generate(**inputs, **generate)
        costs = _untouched_costs(model, inputs["input_ids"], output.past_key_values)
    else:
        with trim(model, method) as run:
            output = model.generate(**inputs, **generate)
        costs = _trimmed_costs(run.report, len(items))
    tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    lengths = _lengths(tokens, model.generation_config.eos_token_id)
    return [Answer(text.strip(), n, cost) for text, n, cost in zip(texts, lengths, costs, strict=True)]


def _untouched_costs(model: Any, ids: torch.Tensor, cache: Any) -> list[dict[str, float]]:
    spec = discover(model)
    batch, length = ids.shape
    flops = prefill_flops(spec.decoder_shape, [length] * spec.decoder_shape.layers)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / batch
    visual = torch.isin(ids, torch.tensor(spec.visual_token_ids, device=ids.device)).sum(1).tolist()
    images = vision_flops(spec.vision_shape, 1)
    return [
        {
            "visual_tokens": n,
            "average_tokens": n,
            "prefill_flops": flops,
            "prefill_flops_full": flops,
            "vision_flops": images,
            "kv_mean": 1.0,
            "kv_bytes_peak": held,
            "kv_bytes_full": held,
        }
        for n in visual
    ]


def _trimmed_costs(report: TrimReport, batch: int) -> list[dict[str, float]]:
    layers = report.visual_tokens_per_layer
    # There is always a cache: generation was asked to use one.
    assert report.kv_fraction_mean is not None
    return [
        {
            "visual_tokens": report.visual_tokens[b],
            "average_tokens": sum(layer[b] for layer in layers) / len(layers),
            "prefill_flops": report.prefill_flops / batch,
            "prefill_flops_full": report.prefill_flops_full / batch,
            "vision_flops": report.vision_flops / batch,
            "kv_mean": report.kv_fraction_mean,
            "kv_bytes_peak": report.kv_bytes_peak / batch,
            "kv_bytes_full": report.kv_bytes_full / batch,
        }
        for b in range(batch)
    ]


def _lengths(tokens: torch.Tensor, end: int | list[int] | None) -> list[int]:
    """Generated tokens of each sample up to its end-of-sequence token, which may be padding's too."""
    ends = torch.tensor([] if end is None else end, dtype=tokens.dtype, device=tokens.device).reshape(-1)
    before = torch.isin(tokens, ends).cumsum(1) == 0
    return (before.sum(1) + 1).clamp(max=tokens.shape[1]).tolist()
