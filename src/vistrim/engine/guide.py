"""The guide: a smaller model that answers first, and what it pays attention to meanwhile."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteriaList

from vistrim.architectures import ModelSpec, discover
from vistrim.core.costs import decode_flops, prefill_flops, vision_flops
from vistrim.engine import tap
from vistrim.engine.confidence import KeepBest, exit_score, log_probability, read_again
from vistrim.engine.generation import GenerateCall, begin_generation
from vistrim.engine.listening import Listener
from vistrim.engine.recorder import clock
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base import Guidance

DEFAULT_NEW_TOKENS = 20
"""Longest answer in transformers where nothing says how long it may be."""
OBEYED = (
    "min_length",
    "min_new_tokens",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
)
"""Settings of a call of ``generate``, beside length and end, that change a greedy answer."""
GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "use_cache": True,
    "cache_implementation": "dynamic",
    "prompt_lookup_num_tokens": None,
    "return_dict_in_generate": True,
}

_locks: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class GuideAnswer:
    """What the guide made of a batch.

    Attributes
    ----------
    tokens : Tensor
        ``[batch, n]`` long: the answers; what is behind their ends is of no account.
    lengths : tuple of int
        Tokens of each answer, the end-of-sequence token included.
    received : Tensor
        ``[batch, prompt tokens]`` float32: see `vistrim.methods.base.InputTokens.guidance`.
    exit_scores : tuple of float
        In [0, 1], one per sample; empty if none are asked for.
    images, prompt_tokens, visual_tokens : tuple of int
        Per sample.
    pad : int
        Stands behind answers that are shorter than others.
    flops : tuple of int
        Per sample, for the sample alone: vision tower, prefill, decoding steps and the reading for the exit score.
    seconds : float
        Wall time of all that.
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    received: Tensor
    exit_scores: tuple[float, ...]
    images: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    pad: int
    flops: tuple[int, ...]
    seconds: float


class Guide:
    """A guide for a model.

    Parameters
    ----------
    guidance : Guidance
        What the method asks for.
    spec : ModelSpec
        The model that is to be guided.

    Raises
    ------
    UnsupportedModelError
        If the guide is of no supported structure, or is being trimmed.
    ValueError
        If it does not fit the model.
    """

    def __init__(self, guidance: Guidance, spec: ModelSpec) -> None:
        self.model: Any = guidance.guide
        self.guidance = guidance
        try:
            self.spec = discover(self.model)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"this model cannot be a guide: {error}") from error
        _check_alignment(self.spec, spec)
        self.check_free()
        # Two threads would listen to each other; nor can a guide that two models share answer both at once.
        self._lock = _locks.setdefault(self.model, threading.RLock())

    def check_free(self) -> None:
        """Refuse a guide that does not see all of its visual tokens.

        Raises
        ------
        UnsupportedModelError
            If it is being trimmed.
        """
        if tap.is_installed(self.spec.attentions[0]):
            raise UnsupportedModelError("the guide is being trimmed itself: leave that context (or detach it) first")

    @torch.no_grad()
    def answer(self, call: GenerateCall) -> GuideAnswer:
        """Answer a batch greedily, given the inputs and the limits of a call of the model's ``generate``.

        Raises
        ------
        UnsupportedGenerationError
            If the guide cannot be listened to, for example because of its attention kernel.
        UnsupportedModelError
            If it is being trimmed.
        """
        with self._lock:
            self.check_free()
            device = self.spec.device
            began = clock(device)
            inputs, settings = self._inputs(call), self._settings(call)
            listener, tokens, logits = self._generate(inputs, settings)
            images, flops = self._images(listener), self._flops(listener)
            scores: tuple[float, ...] = ()
            if logits is not None:
                ids, lengths = inputs["input_ids"], listener.lengths
                mask = listener.prompt.tokens.valid.long()
                best = KeepBest(self.guidance.consistency_share, listener.received)
                reading = read_again(self.model, ids, mask, listener.encoded, tokens, lengths, best)
                confidence = log_probability(logits, tokens, lengths)
                consistency = log_probability(reading.logits, tokens, lengths)
                scores = tuple(exit_score(confidence, consistency, lengths).tolist())
                flops = [a + b for a, b in zip(flops, reading.flops, strict=True)]
            ended = clock(device)
        return GuideAnswer(
            tokens=tokens,
            lengths=tuple(listener.lengths.tolist()),
            received=listener.received,
            exit_scores=scores,
            images=images,
            prompt_tokens=listener.prompt.tokens.n_valid,
            visual_tokens=listener.prompt.tokens.n_visual,
            pad=settings["pad_token_id"],
            flops=tuple(flops),
            seconds=ended - began,
        )

    def _generate(self, inputs: dict[str, Tensor], settings: dict[str, Any]) -> tuple[Listener, Tensor, Any]:
        """Answer, listened to: also returns the answers and, for an exit score, their logits."""
        ids = inputs["input_ids"]
        listener = Listener(self.spec, torch.tensor(settings["eos_token_id"] or [], device=ids.device))
        settings = settings | {"stopping_criteria": StoppingCriteriaList([listener.note_token])}
        generate = self.model.generate
        # The guide's own generation config may ask for what cannot be listened to.
        begin_generation(GenerateCall.of(self.model, generate, (), inputs | settings), acts_in_decode=False)
        with listener.listening():
            output = generate(**inputs, **settings)
        longest = int(listener.lengths.max())
        logits = output.logits[:longest] if output.logits else None
        return listener, output.sequences[:, ids.shape[1] :][:, :longest], logits

    def _inputs(self, call: GenerateCall) -> dict[str, Tensor]:
        """Prompts and images, where and as the guide takes them."""
        device, dtype = self.spec.device, self.spec.dtype
        names = ("attention_mask", "pixel_values", "image_sizes")
        given = {name: call.arguments[name] for name in names if call.arguments.get(name) is not None}
        return {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in ({"input_ids": call.input_ids} | given).items()
        }

    def _settings(self, call: GenerateCall) -> dict[str, Any]:
        """The call's settings as far as they decide on a greedy answer."""
        setting, own = call.setting, self.model.generation_config
        ends = _ids(setting("eos_token_id"))
        if "eos_token_id" not in call.arguments:
            ends = [*dict.fromkeys(ends + _ids(own.eos_token_id))]
        known = (setting("pad_token_id"), own.pad_token_id, *ends, 0)
        most = setting("max_new_tokens")
        if most is None:
            assert call.input_ids is not None
            length = setting("max_length")
            most = DEFAULT_NEW_TOKENS if length is None else length - call.input_ids.shape[1]
        return {
            **{name: setting(name) for name in OBEYED if setting(name) is not None},
            **GREEDY,
            "max_new_tokens": most,
            "eos_token_id": ends or None,
            "pad_token_id": next(int(token) for token in known if token is not None),
            "output_logits": self.guidance.exit_threshold is not None,
        }

    def _images(self, listener: Listener) -> tuple[int, ...]:
        prompt = listener.prompt
        if prompt.inputs.placeholders is None:
            return (0,) * len(prompt.tokens.n_visual)
        return tuple(map(len, prompt.images_per_sample()))

    def _flops(self, listener: Listener) -> list[int]:
        """FLOPs of encoding, prefill and decoding steps."""
        shape, tower = self.spec.decoder_shape, self.spec.vision_shape
        samples = zip(listener.prompt.tokens.n_valid, self._images(listener), listener.lengths.tolist(), strict=True)
        return [
            vision_flops(tower, images)
            + prefill_flops(shape, [prompt] * shape.layers)
            # The last token of an answer is never read.
            + decode_flops(shape, prompt, answer - 1)
            for prompt, images, answer in samples
        ]


def _ids(tokens: Any) -> list[int]:
    """Token ids from one, several or None."""
    return [] if tokens is None else torch.as_tensor(tokens).reshape(-1).tolist()


def _check_alignment(guide: ModelSpec, model: ModelSpec) -> None:
    """Refuse a guide whose n-th visual token is not the model's."""
    if guide.decoder is model.decoder:
        raise ValueError("the guide is the model itself: give a smaller one, as in sgl:guide=reference-small")
    aligned = {
        "an image size of {} pixels": lambda spec: spec.vision.image_size,
        "{} visual tokens per image": lambda spec: spec.image_tokens,
        "visual tokens in a grid of {}": lambda spec: spec.grid,
        "image token id {}": lambda spec: ", ".join(map(str, spec.visual_token_ids)),
        "a vocabulary of {} tokens": lambda spec: spec.embed.num_embeddings,
    }
    for words, figure in aligned.items():
        if figure(guide) != figure(model):
            raise ValueError(
                f"the guide has {words.format(figure(guide))}, the model {figure(model)}, and their visual tokens do "
                "not correspond one to one: give a smaller model of the same family, trained with the same processor"
            )
