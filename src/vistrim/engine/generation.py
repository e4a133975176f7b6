"""The border of one call of ``generate``: what is refused before it starts, and what belongs to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.cache_utils import Cache

from vistrim.engine.cache import check_cache
from vistrim.engine.recorder import Recorder
from vistrim.engine.vision import VisionRecord
from vistrim.errors import UnsupportedGenerationError

ATTENTION_KERNELS = ("sdpa", "eager")


@dataclass
class Generation:
    """One running call of ``generate``, in the thread that runs it.

    Attributes
    ----------
    prompt_length : int
        Tokens of the given ids that the output repeats.
    copies : int
        Rows that each sample is expanded to (beams or several answers).
    drafts : bool
        Whether forward passes carry drafted candidates behind the sequence.
    caches : bool
        Whether it has a KV cache.
    recorder : Recorder or None
        Set by the prefill.
    cache : Cache or None
        The cache in use.
    ranking : Tensor or None
        ``[batch]`` long: slot of the last prompt token, set by the prefill.
    vision : VisionRecord or None
        What the vision tower computed before the first forward pass.
    """

    prompt_length: int
    copies: int
    drafts: bool
    caches: bool
    recorder: Recorder | None = None
    cache: Cache | None = None
    ranking: Tensor | None = None
    vision: VisionRecord | None = None

    def end(self, output: Any) -> None:
        """Note what was generated."""
        if self.recorder is not None:
            sequences = output if isinstance(output, Tensor) else output.sequences
            self.recorder.end_generation(sequences.shape[1] - self.prompt_length, self.copies, self.cache)


def begin_generation(
    model: PreTrainedModel,
    generate: Callable[..., Any],
    acts_in_decode: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Generation:
    """Check a call of ``generate``, and refuse it before any work is done if it cannot be trimmed correctly.

    Parameters
    ----------
    model : PreTrainedModel
        The model to generate with.
    generate : callable
        Its ``generate``.
    acts_in_decode : bool
        Whether the method trims the cache while decoding.
    args, kwargs
        Arguments of the call.

    Raises
    ------
    UnsupportedGenerationError
        With the reason and the way out.
    """
    bound = inspect.signature(generate).bind(*args, **kwargs).arguments
    arguments = bound | bound.pop("kwargs", {})
    sources = (arguments.get("generation_config"), model.generation_config)

    def setting(name: str) -> Any:
        if arguments.get(name) is not None:
            return arguments[name]
        return next((v for s in sources if (v := getattr(s, name, None)) is not None), None)

    check_kernel(model.config.get_text_config(decoder=True))
    _check_cache_settings(setting, acts_in_decode)
    if (cache := arguments.get("past_key_values")) is not None:
        check_cache(cache)
    _check_loop(setting, acts_in_decode)
    ids = arguments.get("input_ids", arguments.get("inputs"))
    return Generation(
        prompt_length=0 if ids is None else ids.shape[1],
        copies=max(setting("num_beams") or 1, setting("num_return_sequences") or 1),
        drafts=setting("prompt_lookup_num_tokens") is not None,
        caches=setting("use_cache") is not False,
    )


def check_kernel(config: Any) -> None:
    """Refuse an attention kernel that the engine cannot feed with fewer tokens.

    Raises
    ------
    UnsupportedGenerationError
        For anything but SDPA and eager attention.
    """
    kernel = config._attn_implementation or "eager"
    if kernel not in ATTENTION_KERNELS:
        raise UnsupportedGenerationError(
            f"vistrim does not support attention {kernel!r}: call model.set_attn_implementation('sdpa') (or 'eager')"
        )


def _check_cache_settings(setting: Callable[[str], Any], acts_in_decode: bool) -> None:
    if setting("cache_implementation") not in (None, "dynamic"):
        _refuse(
            f"cache_implementation={setting('cache_implementation')!r}, from which tokens cannot be removed",
            "leave it out to use the default dynamic cache",
        )
    if setting("prefill_chunk_size") is not None:
        _refuse("chunked prefill, which would rank each chunk by its own last token", "leave out `prefill_chunk_size`")
    if setting("use_cache") is False and acts_in_decode:
        _refuse("decode-time trimming without a KV cache", "leave out `use_cache=False`, or use vistrim.PVTP()")


def _check_loop(setting: Callable[[str], Any], acts_in_decode: bool) -> None:
    if setting("prompt_lookup_num_tokens") is not None and acts_in_decode:
        _refuse(
            "prompt-lookup decoding together with decode-time trimming, whose tokens may be taken back",
            "use a method that trims in prefill only, such as vistrim.PVTP()",
        )
    if setting("assistant_model") is not None or setting("assistant_early_exit") is not None:
        _refuse("assisted decoding with a draft model", "use `prompt_lookup_num_tokens` or plain decoding")
    if setting("custom_generate") is not None:
        _refuse("a custom generation loop", "leave out `custom_generate`")
    processors = setting("logits_processor") or []
    guided = any(isinstance(p, UnbatchedClassifierFreeGuidanceLogitsProcessor) for p in processors)
    if guided or setting("guidance_scale") not in (None, 1, 1.0):
        _refuse("classifier-free guidance, which runs a second sequence inside the first", "leave out `guidance_scale`")
    # These loops live outside transformers and handle the cache in their own ways.
    loops = {
        "penalty_alpha": "contrastive search",
        "dola_layers": "DoLa decoding",
        "constraints": "constrained beam search",
        "force_words_ids": "constrained beam search",
    }
    for name, loop in loops.items():
        if setting(name):
            _refuse(loop, f"leave out `{name}` and use greedy search, sampling or beam search")
    if (setting("num_beam_groups") or 1) > 1:
        _refuse("group beam search", "leave out `num_beam_groups`")


def _refuse(reason: str, way_out: str) -> None:
    raise UnsupportedGenerationError(f"vistrim does not support {reason}: {way_out}")
