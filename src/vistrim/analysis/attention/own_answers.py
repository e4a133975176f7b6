"""The untouched model's own answers, read again in one forward pass, and divergence from its predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistrim.engine.hooks import Call, before
from vistrim.engine.inputs.appended_text import with_text_behind
from vistrim.engine.single_pass import untrimmed, without_labels

PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos")


@dataclass(frozen=True)
class OwnAnswers:
    """Prompts followed by the untouched model's greedy answers.

    Attributes
    ----------
    inputs : dict
        Arguments of one forward pass over prompts and answers. Answers lack their last token, after which nothing is
        predicted.
    prompt : int
        Tokens of a row before its answer, including padding on the left.
    tokens : Tensor
        ``[batch, n]`` long: the answers, including end-of-sequence tokens.
    counted : Tensor
        ``[batch, n]`` bool: False after the end of a shorter answer.
    """

    inputs: dict[str, Any]
    prompt: int
    tokens: Tensor
    counted: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, ``[batch]`` long."""
        return self.counted.sum(1)

    def arguments(self) -> dict[str, Any]:
        """Arguments of a forward pass whose logits are those of the answers, ``[batch, n, vocabulary]``."""
        # Models write into the dictionary of encoded images.
        own = {name: dict(value) if name == "mm_encoder_outputs" else value for name, value in self.inputs.items()}
        return own | {"logits_to_keep": self.tokens.shape[1], "use_cache": False}

    def predicted(self, output: Any) -> Tensor:
        """The logits of the answers in the output of such a pass; some models keep those of all places."""
        logits: Tensor = output.logits[:, -self.tokens.shape[1] :]
        return logits


@torch.no_grad()
def own_answers(model: Any, inputs: Mapping[str, Any], max_new_tokens: int) -> OwnAnswers:
    """Let the untouched model answer greedily.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        Processor output for prompts, padded on the left.
    max_new_tokens : int
        Longest answer.

    Returns
    -------
    OwnAnswers
        Images are encoded once: its inputs hold the output of the vision tower, where the model accepts it.

    Raises
    ------
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = untrimmed(model)
    encoded: dict[str, Any] = {}

    def note(call: Call) -> None:
        if not encoded:
            encoded.update({name: value for name, value in (call.get("mm_encoder_outputs") or {}).items() if value})

    given = without_labels(inputs)
    handle = before(spec.base, note)
    try:
        sequences = model.generate(**given, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True)
    finally:
        handle.remove()
    prompt = given["input_ids"].shape[1]
    tokens = sequences[:, prompt:]
    counted = _counted(tokens, model.generation_config.eos_token_id)
    if encoded:
        given = {name: value for name, value in given.items() if name not in PIXELS}
        given["mm_encoder_outputs"] = encoded
    if tokens.shape[1] > 1:
        # The row of the last token predicts nothing that is compared.
        given = _with_text_behind(model, given, tokens[:, :-1], counted[:, 1:])
    if spec.rope_axes == 1:
        # Not all decoders depend on distances alone (Ministral 3): `generate` counts without padding, too.
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return OwnAnswers(given, prompt, tokens, counted)


def _with_text_behind(model: Any, given: dict[str, Any], ids: Tensor, valid: Tensor) -> dict[str, Any]:
    images = given.pop("mm_encoder_outputs", None)
    found = with_text_behind(model, given, ids, valid)
    return found if images is None else found | {"mm_encoder_outputs": images}


def _counted(tokens: Tensor, end: int | list[int] | None) -> Tensor:
    ends = torch.tensor([] if end is None else end, dtype=tokens.dtype, device=tokens.device).reshape(-1)
    found = torch.isin(tokens, ends)
    return found.cumsum(1) - found.long() == 0


def next_token_divergence(untouched: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compare predictions with those of the untouched model.

    Parameters
    ----------
    untouched, other : Tensor
        ``[batch, n, vocabulary]`` logits.

    Returns
    -------
    divergence : Tensor
        ``[batch, n]`` float32: :math:`KL(untouched \| other)` in nats.
    same : Tensor
        ``[batch, n]`` bool: whether the most likely token is the same.
    """
    divergences, same = [], []
    # One step at a time: float32 logits over a vocabulary are large.
    for own, given in zip(untouched.unbind(1), other.unbind(1), strict=True):
        p, q = own.float().log_softmax(-1), given.float().log_softmax(-1)
        # Models may exclude tokens with infinite logits: 0 log 0 is 0.
        gap = torch.where(p > -torch.inf, p - q, 0.0)
        divergences.append((p.exp() * gap).sum(-1).clamp(min=0))
        same.append(own.argmax(-1) == given.argmax(-1))
    return torch.stack(divergences, 1), torch.stack(same, 1)
