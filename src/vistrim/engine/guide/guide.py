"""The guide model: a smaller model that answers first, and its attention to the visual tokens."""

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
from vistrim.core.layout import Picture
from vistrim.engine.attention import interception
from vistrim.engine.attention.flash import check_readable
from vistrim.engine.attention.tensor_parallel import find_group
from vistrim.engine.generation import GenerateCall, begin_generation
from vistrim.engine.guide.attention_collector import AttentionCollector
from vistrim.engine.guide.exit_score import KeepBest, exit_score, log_probability, read_again
from vistrim.engine.guide.settings import greedy_settings, inputs_of
from vistrim.engine.report.recorder import devices_of
from vistrim.engine.report.timing import clock
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.guidance import Guidance

_locks: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class GuideAnswer:
    """Answers of the guide model to a batch.

    Attributes
    ----------
    tokens : Tensor
        ``[batch, n]`` long: the answers. Tokens after the end of an answer are undefined.
    lengths : tuple of int
        Tokens of each answer, including the end-of-sequence token.
    received : Tensor
        ``[batch, prompt tokens]`` float32: see `vistrim.methods.base.stage_inputs.InputTokens.guidance`.
    exit_scores : tuple of float
        Exit score of each sample, in [0, 1]. Empty without an exit threshold.
    images, prompt_tokens, visual_tokens : tuple of int
        Number of images and tokens per sample.
    pad : int
        Padding token after shorter answers.
    flops : tuple of int
        FLOPs of each sample, as if it ran alone: vision tower, prefill, decoding and the pass for the exit score.
    seconds : float
        Wall time of the whole batch.
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
    """A guide model and its checks against the large model.

    Parameters
    ----------
    guidance : Guidance
        The guide model and the settings of the method.
    spec : ModelSpec
        The large model.

    Raises
    ------
    UnsupportedModelError
        If the structure of the guide model is not supported, or it is being trimmed.
    ValueError
        If it does not match the large model.
    """

    def __init__(self, guidance: Guidance, spec: ModelSpec) -> None:
        self.model: Any = guidance.guide
        self.guidance = guidance
        try:
            self.spec = discover(self.model)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"this model cannot be a guide model: {error}") from error
        if find_group(self.model) is not None:
            raise UnsupportedModelError(
                "vistrim does not support a guide model with tensor parallelism: load it on one device in each process"
            )
        _check_alignment(self.spec, spec)
        # Only one thread at a time uses a guide model, even if several models share it.
        self._lock = _locks.setdefault(self.model, threading.RLock())
        self.check_free()

    def check_free(self) -> None:
        """Refuse a guide model that is trimmed or not deterministic.

        Raises
        ------
        UnsupportedModelError
            If it is being trimmed, or in training mode.
        """
        if self.model.training:
            raise UnsupportedModelError("the guide model is in training mode, with dropout: call its eval() first")
        with self._lock:
            if interception.is_installed(self.spec.attentions[0]):
                raise UnsupportedModelError(
                    "the guide model is being trimmed itself: leave that context (or detach) first"
                )

    @torch.no_grad()
    def answer(self, call: GenerateCall) -> GuideAnswer:
        """Answer a batch greedily, with the inputs and the length settings of a call of ``generate``.

        Raises
        ------
        UnsupportedGenerationError
            If the attention of the guide model cannot be read, for example because of its kernel.
        UnsupportedModelError
            If it is being trimmed, or in training mode.
        """
        if self.model.training:
            raise UnsupportedModelError("the guide model is in training mode, with dropout: call its eval() first")
        with self._lock:
            self.check_free()
            devices = devices_of(self.spec, self.spec.device)
            began = clock(*devices)
            inputs, settings = inputs_of(call, self.spec), greedy_settings(call, self.model.generation_config)
            settings["output_logits"] = self.guidance.exit_threshold is not None
            collector, tokens, logits = self._generate(inputs, settings)
            best, scores = KeepBest(self.guidance.consistency_share, collector.received), None
            if logits is not None:
                mask, lengths = collector.prompt.tokens.valid.long(), collector.lengths
                again = read_again(self.model, inputs["input_ids"], mask, collector.encoded, tokens, lengths, best)
                confidence = log_probability(logits, tokens, lengths)
                scores = exit_score(confidence, log_probability(again, tokens, lengths), lengths)
            seconds = clock(*devices) - began
        return GuideAnswer(
            tokens=tokens,
            lengths=tuple(collector.lengths.tolist()),
            received=collector.received,
            exit_scores=() if scores is None else tuple(scores.tolist()),
            images=tuple(map(len, self._images(collector))),
            prompt_tokens=collector.prompt.tokens.n_valid,
            visual_tokens=collector.prompt.tokens.n_visual,
            pad=settings["pad_token_id"],
            flops=self._flops(collector, best if scores is not None else None),
            seconds=seconds,
        )

    def _generate(self, inputs: dict[str, Tensor], settings: dict[str, Any]) -> tuple[AttentionCollector, Tensor, Any]:
        """Answer a batch. Returns the collected attention, the answers and, for an exit score, their logits."""
        ids = inputs["input_ids"]
        collector = AttentionCollector(
            self.spec, torch.tensor(settings["eos_token_id"] or [], dtype=ids.dtype, device=ids.device)
        )
        settings = settings | {"stopping_criteria": StoppingCriteriaList([collector.note_token])}
        generate = self.model.generate
        # The generation config of the guide model may have settings that are not supported.
        begin_generation(GenerateCall.of(self.model, generate, (), inputs | settings), acts_in_decode=False)
        check_readable(self.spec.decoder)
        with collector.collecting():
            output = generate(**inputs, **settings)
        longest = int(collector.lengths.max())
        logits = output.logits[:longest] if output.logits else None
        return collector, output.sequences[:, ids.shape[1] :][:, :longest], logits

    def _images(self, collector: AttentionCollector) -> tuple[tuple[Picture, ...], ...]:
        prompt = collector.prompt
        if not prompt.inputs.placeholders:
            return ((),) * len(prompt.tokens.n_visual)
        return prompt.images.of_sample

    def _flops(self, collector: AttentionCollector, best: KeepBest | None) -> tuple[int, ...]:
        """Count the FLOPs per sample. The last token of an answer is never an input."""
        tokens, shape = collector.prompt.tokens, self.spec.decoder_shape
        steps = [length - 1 for length in collector.lengths.tolist()]
        flops = []
        for whole, visual, images, read in zip(
            tokens.n_valid, tokens.n_visual, self._images(collector), steps, strict=True
        ):
            spent = vision_flops(self.spec.images.cost, images) or 0 if self.spec.images.cost else 0
            spent += prefill_flops(shape, [whole] * shape.layers) + decode_flops(shape, whole, read)
            if best is not None:
                left = whole - visual + best.kept(visual)
                spent += prefill_flops(shape, [left] * shape.layers)
                spent += prefill_flops(shape, [read] * shape.layers, [left] * shape.layers)
            flops.append(spent)
        return tuple(flops)


def _check_alignment(guide: ModelSpec, model: ModelSpec) -> None:
    """Refuse a guide model whose n-th visual token does not correspond to that of the large model."""
    if guide.decoder is model.decoder:
        raise ValueError("the guide model is the model itself: use a smaller one, as in sgl:guide=reference-small")
    aligned = {
        "an image size of {} pixels": lambda spec: spec.images.pixels,
        "{} visual tokens per image": lambda spec: spec.images.tokens,
        "visual tokens in a grid of {}": lambda spec: spec.images.grid,
        "image token id {}": lambda spec: ", ".join(map(str, spec.visual_token_ids.values())),
        "a vocabulary of {} tokens": lambda spec: spec.embed.num_embeddings,
    }
    for words, figure in aligned.items():
        if figure(guide) != figure(model):
            raise ValueError(
                f"the guide model has {words.format(figure(guide))}, the large model {figure(model)}, so their visual "
                "tokens do not correspond one to one: use a smaller model of the same family, trained with the same "
                "processor"
            )
