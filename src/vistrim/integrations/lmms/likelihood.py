"""Likelihood of a given answer, in one forward pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.core.costs import prefill_flops
from vistrim.engine import describe
from vistrim.engine.inputs.appended_text import with_text_behind
from vistrim.errors import InputError
from vistrim.methods import Method
from vistrim.trimming import trim

CONTEXT = 16
"""Tokens before an answer with which it is tokenized: its first token may depend on them."""


@dataclass(frozen=True)
class Likelihood:
    """Likelihood of an answer, and the costs of the pass over prompt and answer.

    Attributes
    ----------
    loss : float
        Cross-entropy per token of the answer, in nats.
    is_greedy : bool
        Whether each token is the most likely one.
    prompt_tokens, answer_tokens, visual_tokens : int
        Tokens of the prompt, of the answer, and visual ones in the prompt.
    average_tokens : float
        Visual tokens per layer, mean over layers.
    flops, flops_full : int
        FLOPs of decoder and method, and of the untrimmed decoder.
    """

    loss: float
    is_greedy: bool
    prompt_tokens: int
    answer_tokens: int
    visual_tokens: int
    average_tokens: float
    flops: int
    flops_full: int


@torch.no_grad()
def likelihood(model: Any, processor: Any, inputs: Any, answer: str, method: Method | None) -> Likelihood:
    """Compute the likelihood of a given answer.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them.
    inputs : BatchFeature
        One prompt as the processor returns it.
    answer : str
        The answer, with the space before it.
    method : Method or None
        Method to trim with; None for the untouched model. The last prompt token ranks, as in generation.

    Returns
    -------
    Likelihood

    Raises
    ------
    InputError
        If the answer has no token.
    """
    spec = describe(model)
    inputs = inputs.to(model.device, dtype=model.dtype)
    prompt = inputs["input_ids"][0]
    is_visual = torch.isin(prompt, torch.tensor([*spec.visual_token_ids.values()], device=prompt.device))
    ids = torch.tensor([_answer_ids(processor.tokenizer, prompt, is_visual, answer)], device=prompt.device)
    given = with_text_behind(model, inputs, ids, torch.ones_like(ids, dtype=torch.bool))
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), ids], 1)
    visual, shape = int(is_visual.sum()), spec.decoder_shape
    full = prefill_flops(shape, [labels.shape[1]] * shape.layers)
    average, flops = float(visual), full
    if method is None:
        output = model(**given, labels=labels, use_cache=False)
    else:
        with trim(model, method) as run:
            output = model(**given, labels=labels, use_cache=False)
        report = run.report
        average, flops = report.average_tokens, report.prefill_flops + report.method_flops[0]
    best = output.logits[:, -ids.shape[1] - 1 : -1].argmax(-1)
    is_greedy = bool((best == ids).all())
    return Likelihood(float(output.loss), is_greedy, len(prompt), ids.shape[1], visual, average, flops, full)


def _answer_ids(tokenizer: Any, prompt: Tensor, is_visual: Tensor, answer: str) -> list[int]:
    text = prompt[-CONTEXT:][is_visual[-CONTEXT:].flip(0).cumsum(0).flip(0) == 0]
    before = tokenizer.decode(text)
    context = tokenizer(before, add_special_tokens=False)["input_ids"]
    whole = tokenizer(before + answer, add_special_tokens=False)["input_ids"]
    if len(whole) <= len(context):
        raise InputError(f"the answer {answer!r} adds no token to the prompt: give a longer one")
    return whole[len(context) :]
