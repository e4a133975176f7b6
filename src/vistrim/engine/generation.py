"""The border of one call of ``generate``: what is refused before it starts, and what belongs to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.cache_utils import Cache

from vistrim.engine.cache_swap import check_cache
from vistrim.engine.encodings import Encodings
from vistrim.engine.exits import GuideRecord
from vistrim.engine.flash import is_flash, sliding_windows
from vistrim.engine.recorder import Recorder
from vistrim.engine.releases import CACHE
from vistrim.errors import UnsupportedGenerationError

ATTENTION_KERNELS = ("sdpa", "eager")


@dataclass(frozen=True)
class GenerateCall:
    """A call of ``generate``.

    Attributes
    ----------
    arguments : dict
        By name.
    configs : tuple
        Generation configs that stand behind them: the one that was given, and the model's.
    text_config : object
        The config of the model's decoder.
    """

    arguments: dict[str, Any]
    configs: tuple[Any, ...]
    text_config: Any

    @staticmethod
    def of(
        model: PreTrainedModel, generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> GenerateCall:
        """Sort the arguments of a call of the model's ``generate``."""
        bound = inspect.signature(generate).bind(*args, **kwargs).arguments
        arguments = bound | bound.pop("kwargs", {})
        configs = (arguments.get("generation_config"), model.generation_config)
        return GenerateCall(arguments, configs, model.config.get_text_config(decoder=True))

    @property
    def input_ids(self) -> Tensor | None:
        """``[batch, tokens]`` long."""
        return self.arguments.get("input_ids", self.arguments.get("inputs"))

    @property
    def cache(self) -> Any:
        """The cache that was given; None: ``generate`` makes one."""
        return self.arguments.get(CACHE)

    def setting(self, name: str) -> Any:
        """A generation setting, from wherever it is set first; None if it is not."""
        if self.arguments.get(name) is not None:
            return self.arguments[name]
        return next((v for config in self.configs if (v := getattr(config, name, None)) is not None), None)


@dataclass
class Generation:
    """One running call of ``generate``, in the thread that runs it.

    Attributes
    ----------
    prompt_length : int
        Tokens of the given ids that the output repeats.
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
    encodings : Encodings or None
        What became of the images before the first forward pass.
    guidance : Tensor or None
        ``[samples, prompt tokens]`` float32: scores from a guide, for a method that ranks by one.
    guided : GuideRecord or None
        What the guide did.
    """

    prompt_length: int
    drafts: bool
    caches: bool
    recorder: Recorder | None = None
    cache: Cache | None = None
    ranking: Tensor | None = None
    encodings: Encodings | None = None
    guidance: Tensor | None = None
    guided: GuideRecord | None = None

    def end(self, output: Any) -> None:
        """Note what was generated."""
        if self.recorder is not None:
            sequences = output if isinstance(output, Tensor) else output.sequences
            self.recorder.end_generation(sequences.shape[1] - self.prompt_length, self.cache)


def begin_generation(call: GenerateCall, acts_in_decode: bool, longest: int | None = None) -> Generation:
    """Check a call of ``generate``, and refuse it before any work is done if it cannot be trimmed correctly.

    Parameters
    ----------
    call : GenerateCall
        The call.
    acts_in_decode : bool
        Whether the method trims the cache while decoding.
    longest : int, optional
        Tokens of the longest sequence that can be trimmed.

    Raises
    ------
    UnsupportedGenerationError
        With the reason and the way out.
    """
    setting, ids = call.setting, call.input_ids
    check_kernel(call.text_config)
    _check_cache_settings(setting, acts_in_decode)
    if call.cache is not None:
        check_cache(call.cache)
    _check_loop(setting, acts_in_decode, call.text_config)
    if ids is not None and longest is not None:
        new = setting("max_new_tokens")
        check_length(ids.shape[1] + new if new is not None else setting("max_length") or 0, longest)
    return Generation(
        prompt_length=0 if ids is None else ids.shape[1],
        drafts=setting("prompt_lookup_num_tokens") is not None,
        caches=setting("use_cache") is not False,
    )


def check_router_logits(call: Mapping[str, Any], config: Any) -> None:
    """Refuse the balancing loss of experts, which is made with a mask of all tokens.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    asked = call.get("output_router_logits")
    asked = getattr(config, "output_router_logits", False) if asked is None else asked
    if asked and call.get("labels") is not None:
        refuse("the balancing loss of experts", "leave out `output_router_logits`, or `labels`")


def check_length(tokens: int, longest: int | None) -> None:
    """Refuse a sequence that is too long for a model whose attention then depends on where rows are.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    if longest is not None and tokens > longest:
        refuse(
            f"this model beyond {longest} tokens, from where its attention goes by rows instead of positions",
            f"keep prompt and answer within {longest} tokens (max_new_tokens)",
        )


def refuse_continuous_batching(*args: Any, **kwargs: Any) -> None:
    """Refuse what the methods of a model that batch continuously would do.

    Raises
    ------
    UnsupportedGenerationError
        Always.
    """
    refuse("continuous batching, whose paged cache it cannot trim", "use model.generate()")


def check_kernel(config: Any) -> None:
    """Refuse an attention kernel that the engine cannot feed with fewer tokens.

    Raises
    ------
    UnsupportedGenerationError
        For anything but SDPA, eager attention and FlashAttention.
    """
    kernel = config._attn_implementation or "eager"
    if kernel not in ATTENTION_KERNELS and not is_flash(kernel):
        raise UnsupportedGenerationError(
            f"vistrim does not support attention {kernel!r}: call model.set_attn_implementation('sdpa') (or "
            "'eager', or 'flash_attention_2')"
        )


def _check_cache_settings(setting: Callable[[str], Any], acts_in_decode: bool) -> None:
    if setting("cache_implementation") not in (None, "dynamic"):
        refuse(
            f"cache_implementation={setting('cache_implementation')!r}, from which tokens cannot be removed",
            "leave it out to use the default dynamic cache",
        )
    if setting("prefill_chunk_size") is not None:
        refuse("chunked prefill, which would rank each chunk by its own last token", "leave out `prefill_chunk_size`")
    if setting("use_cache") is False and acts_in_decode:
        refuse("decode-time trimming without a KV cache", "leave out `use_cache=False`, or use vistrim.PVTP()")


def _check_loop(setting: Callable[[str], Any], acts_in_decode: bool, text_config: Any) -> None:
    if setting("prompt_lookup_num_tokens") is not None and acts_in_decode:
        refuse(
            "prompt-lookup decoding together with decode-time trimming, whose tokens may be taken back",
            "use a method that trims in prefill only, such as vistrim.PVTP()",
        )
    if setting("prompt_lookup_num_tokens") is not None and any(sliding_windows(text_config)):
        refuse("prompt-lookup decoding with a sliding window", "leave out `prompt_lookup_num_tokens`")
    if setting("assistant_model") is not None or setting("assistant_early_exit") is not None:
        refuse("assisted decoding with a draft model", "use `prompt_lookup_num_tokens` or plain decoding")
    if setting("custom_generate") is not None:
        refuse("a custom generation loop", "leave out `custom_generate`")
    processors = setting("logits_processor") or []
    guided = any(isinstance(p, UnbatchedClassifierFreeGuidanceLogitsProcessor) for p in processors)
    if guided or setting("guidance_scale") not in (None, 1, 1.0):
        refuse("classifier-free guidance, which runs a second sequence inside the first", "leave out `guidance_scale`")
    # These loops live outside transformers and handle the cache in their own ways.
    loops = {
        "penalty_alpha": "contrastive search",
        "dola_layers": "DoLa decoding",
        "constraints": "constrained beam search",
        "force_words_ids": "constrained beam search",
    }
    for name, loop in loops.items():
        if setting(name):
            refuse(loop, f"leave out `{name}` and use greedy search, sampling or beam search")
    if (setting("num_beam_groups") or 1) > 1:
        refuse("group beam search", "leave out `num_beam_groups`")


def refuse(reason: str, way_out: str) -> None:
    """Raise the error that names what is not supported, and the way out."""
    raise UnsupportedGenerationError(f"vistrim does not support {reason}: {way_out}")
