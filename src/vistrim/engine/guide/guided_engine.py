"""Engine for methods with a guide model: it answers first, and its answer is returned where it is confident."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vistrim.architectures import ModelSpec
from vistrim.engine.engine import Engine
from vistrim.engine.generation import GenerateCall, Generation, refuse
from vistrim.engine.guide.exits import PER_IMAGE, PER_SAMPLE, merged, without
from vistrim.engine.guide.guide import Guide, GuideAnswer
from vistrim.engine.inputs.prompt import has_images
from vistrim.engine.releases import CACHE
from vistrim.engine.report.guide_record import GuideRecord
from vistrim.methods.base.method import Method


class GuidedEngine(Engine):
    """Runs a method that ranks tokens by a guide model.

    Parameters
    ----------
    model, method, reports, trace
        As in `Engine`.

    Raises
    ------
    UnsupportedModelError
        If the model or the guide model is not supported, or the guide model is being trimmed.
    ValueError
        If the parameters of the method, including the guide model, do not match the model.
    """

    def __init__(self, model: nn.Module, method: Method, reports: int | None = None, trace: bool = False) -> None:
        super().__init__(model, method, reports, trace)
        assert self.method.guidance is not None
        self.threshold = self.method.guidance.exit_threshold
        self.guide = Guide(self.method.guidance, self.spec)

    def attach(self) -> None:
        """Install the hooks.

        Raises
        ------
        UnsupportedModelError
            If the model or the guide model is already being trimmed.
        """
        self.guide.check_free()
        super().attach()

    def _run(self, call: GenerateCall, generation: Generation, generate: functools.partial[Any]) -> Any:
        """Run the guide model, and then the large model on the samples that did not exit."""
        _check_inputs(call)
        if self.threshold is not None:
            _check_exits(call)
            _check_parting(call, self.spec)
        elif not has_images(call.arguments):
            # There are no visual tokens to rank.
            return super()._run(call, generation, generate)
        answer = self.guide.answer(call)
        exited = self._exited(answer)
        generation.guided = GuideRecord(
            seconds=answer.seconds,
            flops=answer.flops,
            exited=exited,
            exit_scores=answer.exit_scores,
            prompt_tokens=answer.prompt_tokens,
            visual_tokens=answer.visual_tokens,
            answer_tokens=answer.lengths,
            width=answer.received.shape[1],
            caches=generation.caches,
        )
        if not any(exited):
            generation.guidance = answer.received
            return super()._run(call, generation, generate)
        others = None
        if all(exited):
            self._report_alone(generation)
            if (streamer := call.arguments.get("streamer")) is not None:
                _stream(streamer, call, answer)
        else:
            generation.guidance = answer.received[[not gone for gone in exited]]
            rest = replace(call, arguments=without(call.arguments, exited, answer.images))
            others = super()._run(rest, generation, functools.partial(generate.func, **rest.arguments))
        assert call.input_ids is not None
        return merged(call.input_ids, answer.tokens, answer.lengths, exited, others, answer.pad)

    def _exited(self, answer: GuideAnswer) -> tuple[bool, ...]:
        if self.threshold is None:
            return (False,) * len(answer.lengths)
        return tuple(score > self.threshold for score in answer.exit_scores)

    def _report_alone(self, generation: Generation) -> None:
        """Write the report of a batch in which all samples exit."""
        assert generation.guided is not None
        recorder = self._recorder(self.spec.device)
        recorder.guided = generation.guided
        recorder.begin_prefill(0, generation.guided.width, 0, None, None)
        self.remember(recorder)


def _stream(streamer: Any, call: GenerateCall, answer: GuideAnswer) -> None:
    """Stream the prompt and the answer of the guide model, as ``generate`` does."""
    assert call.input_ids is not None
    streamer.put(call.input_ids.cpu())
    for token in answer.tokens[0, : answer.lengths[0]].cpu():
        streamer.put(token[None])
    streamer.end()


def _check_inputs(call: GenerateCall) -> None:
    """Refuse inputs that cannot be passed to the guide model as well."""
    given = call.arguments
    if call.cache is not None and call.cache.get_seq_length():
        refuse(
            "a guide model in a later turn, because it has no cache of the earlier turns",
            f"pass the whole conversation without `{CACHE}`",
        )
    if given.get("inputs_embeds") is not None or call.input_ids is None:
        refuse(
            "a guide model with `inputs_embeds`, which are specific to a model", "pass `input_ids` and `pixel_values`"
        )
    if given.get("position_ids") is not None:
        refuse("a guide model with `position_ids`, which are specific to a model", "leave out `position_ids`")
    if given.get("mm_encoder_outputs"):
        refuse("a guide model with images encoded by another model", "pass `pixel_values`")


def _check_parting(call: GenerateCall, spec: ModelSpec) -> None:
    """Refuse a batch in which it is not known which part of the pixels belongs to a sample that exits."""
    tensors = {name for name, value in call.arguments.items() if isinstance(value, Tensor)}
    pixels = call.arguments.get("pixel_values")
    known = spec.images.grid is not None and (pixels is None or pixels.dim() == 4)
    if call.input_ids is not None and len(call.input_ids) > 1 and not (known and tensors <= {*PER_SAMPLE, *PER_IMAGE}):
        refuse(
            "a guide model with early exit for a batch, in a model with images of several sizes",
            "generate for one sample at a time, or set no exit_threshold",
        )


def _check_exits(call: GenerateCall) -> None:
    """Refuse options that are not available for samples that exit."""
    setting, given = call.setting, call.arguments
    assert call.input_ids is not None
    beams = (setting("num_beams") or 1) > 1 or (setting("num_return_sequences") or 1) > 1
    several = given.get("streamer") is not None and len(call.input_ids) > 1
    cases = {
        "sampling": (setting("do_sample"), "pass do_sample=False"),
        "beams or several answers": (beams, "pass num_beams=1 and num_return_sequences=1"),
        "a returned dictionary": (setting("return_dict_in_generate"), "leave out `return_dict_in_generate`"),
        "a streamer for several samples": (several, "generate for one sample at a time"),
        "a given cache": (call.cache is not None, f"leave out `{CACHE}`"),
        "stop strings": (setting("stop_strings"), "leave out `stop_strings`"),
        "a watermark": (setting("watermarking_config"), "leave out `watermarking_config`"),
        "a time limit": (setting("max_time"), "leave out `max_time`"),
        **{
            f"`{name}`": (given.get(name), f"leave out `{name}`")
            for name in ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")
        },
    }
    for case, (asked, way_out) in cases.items():
        if asked:
            refuse(f"{case} with early exit by a guide model", f"{way_out}, or set no exit_threshold")
