"""Greedy answers to a batch of items, untouched or trimmed, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from transformers import DynamicCache

from vistrim.architectures import discover
from vistrim.core.costs import prefill_flops, vision_flops
from vistrim.methods import Method
from vistrim.prompting import check_context, format_prompts
from vistrim.reference.items import Item
from vistrim.trimming import trim


@dataclass(frozen=True)
class Answer:
    """The answer to one item; everything but the text is explained at `vistrim.evaluation.records.Sample`."""

    text: str
    new_tokens: int
    ended: bool
    prompt_tokens: int
    visual_tokens: int
    average_tokens: float
    prefill_flops: float
    prefill_flops_full: float
    vision_flops: float
    kv_mean: float
    kv_bytes_peak: float
    kv_bytes_full: float


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
    PromptError
        If prompt and answer do not fit into the model's context.
    """
    spec = discover(model)
    inputs = format_prompts(processor, [item.prompt for item in items], [[item.image()] for item in items])
    check_context(model, inputs, max_new_tokens)
    inputs = inputs.to(model.device, dtype=model.dtype)
    generate = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1, "use_cache": True}
    depth = spec.decoder_shape.layers
    full = TokenCounter(model)
    prompt_tokens = inputs["attention_mask"].sum(1).tolist()
    if method is None:
        sequences = model.generate(**inputs, **generate)
        ids = inputs["input_ids"]
        visual = torch.isin(ids, torch.tensor(spec.visual_token_ids, device=ids.device)).sum(1).tolist()
        layers = [visual] * depth
        steps = range(sequences.shape[1] - ids.shape[1])
        held = [[full(length + step) for length in prompt_tokens] for step in steps]
    else:
        with trim(model, method) as run:
            sequences = model.generate(**inputs, **generate)
        report = run.report
        visual, layers, held = report.visual_tokens, report.visual_tokens_per_layer, report.kv_tokens_per_step
    tokens = sequences[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    lengths, ended = _ends(tokens, model.generation_config.eos_token_id)
    answers = []
    for b, text in enumerate(texts):
        prompt = prompt_tokens[b]
        rows = [prompt - visual[b] + layer[b] for layer in layers]
        # The first pass is the prefill; the last token is never stored.
        stored = [step[b] for step in held[: lengths[b]]]
        untrimmed = [full(prompt + step) for step in range(lengths[b])]
        answers.append(
            Answer(
                text=text.strip(),
                new_tokens=lengths[b],
                ended=ended[b],
                prompt_tokens=prompt,
                visual_tokens=visual[b],
                average_tokens=mean(layer[b] for layer in layers),
                prefill_flops=prefill_flops(spec.decoder_shape, rows),
                prefill_flops_full=prefill_flops(spec.decoder_shape, [prompt] * depth),
                vision_flops=vision_flops(spec.vision_shape, 1),
                kv_mean=mean(a / b for a, b in zip(stored, untrimmed, strict=True)),
                kv_bytes_peak=max(stored) * full.bytes_per_token,
                kv_bytes_full=untrimmed[-1] * full.bytes_per_token,
            )
        )
    return answers


class TokenCounter:
    """Tokens that the caches of all layers together hold of an untrimmed sequence, sliding windows included.

    Attributes
    ----------
    bytes_per_token : int
        Bytes of one token's key and value in one layer.
    """

    def __init__(self, model: Any) -> None:
        shape = discover(model).decoder_shape
        self.bytes_per_token = 2 * shape.kv_heads * shape.head_dim * model.dtype.itemsize
        layers = DynamicCache(config=model.config.get_text_config()).layers
        # A sliding layer makes room for the token to come.
        self._windows = [layer.sliding_window - 1 if layer.is_sliding else None for layer in layers]

    def __call__(self, length: int) -> int:
        """Tokens held after ``length`` tokens were seen."""
        return sum(length if window is None else min(length, window) for window in self._windows)


def _ends(tokens: torch.Tensor, end: int | list[int] | None) -> tuple[list[int], list[bool]]:
    """Generated tokens of each sample up to its end-of-sequence token (which may be padding's too); is there one?"""
    ends = torch.tensor([] if end is None else end, dtype=tokens.dtype, device=tokens.device).reshape(-1)
    found = torch.isin(tokens, ends)
    before = (found.cumsum(1) == 0).sum(1)
    return (before + 1).clamp(max=tokens.shape[1]).tolist(), found.any(1).tolist()
