"""One call of ``generate``: its arguments, its state, and the checks before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.cache_utils import Cache
from transformers.generation import GenerationMode

from vistrim.engine.attention.flash import is_flash, sliding_windows
from vistrim.engine.cache.swap import check_cache
from vistrim.engine.inputs.encodings import Encodings
from vistrim.engine.releases import CACHE
from vistrim.engine.report.guide_record import GuideRecord
from vistrim.engine.report.recorder import Recorder
from vistrim.errors import UnsupportedGenerationError

ATTENTION_KERNELS = ("sdpa", "eager")

_NO_SETTINGS = frozenset(inspect.signature(GenerationMixin.generate).parameters)
"""Arguments of ``generate`` that are not generation settings."""

_LOOPS = {
    # These loops are not part of transformers and handle the cache differently.
    GenerationMode.CONTRASTIVE_SEARCH: ("contrastive search", "`penalty_alpha`"),
    GenerationMode.DOLA_GENERATION: ("DoLa decoding", "`dola_layers`"),
    GenerationMode.CONSTRAINED_BEAM_SEARCH: ("constrained beam search", "`constraints` and `force_words_ids`"),
    GenerationMode.GROUP_BEAM_SEARCH: ("group beam search", "`num_beam_groups`"),
}


@dataclass(frozen=True)
class GenerateCall:
    """A call of ``generate``.

    Attributes
    ----------
    arguments : dict
        Arguments by name.
    config : GenerationConfig
        The settings in the order in which ``generate`` resolves them: keyword arguments, the given generation config,
        then that of the model, without the settings that transformers ignores there.
    limits_length : bool
        Whether ``max_length`` was set explicitly. The default counts only new tokens.
    text_config : object
        The config of the model's decoder.
    """

    arguments: dict[str, Any]
    config: GenerationConfig
    limits_length: bool
    text_config: Any

    @staticmethod
    def of(
        model: PreTrainedModel, generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> GenerateCall:
        """Bind the arguments of a call of the model's ``generate``, and resolve its settings."""
        bound = inspect.signature(generate).bind(*args, **kwargs).arguments
        arguments = bound | bound.pop("kwargs", {})
        given: GenerationConfig | None = arguments.get("generation_config")
        others = {name: value for name, value in arguments.items() if name not in _NO_SETTINGS}
        config, _ = model._prepare_generation_config(given, **others)
        lengths = (arguments.get("max_length"), getattr(given, "max_length", None), model.generation_config.max_length)
        return GenerateCall(
            arguments, config, any(n is not None for n in lengths), model.config.get_text_config(decoder=True)
        )

    @property
    def input_ids(self) -> Tensor | None:
        """Token ids of the prompt, ``[batch, tokens]`` long."""
        return self.arguments.get("input_ids", self.arguments.get("inputs"))

    @property
    def cache(self) -> Any:
        """The given cache. None: ``generate`` creates one."""
        return self.arguments.get(CACHE)

    @property
    def prompt_length(self) -> int:
        """Number of prompt tokens, including padding."""
        prompt = self.arguments.get("inputs_embeds")
        prompt = self.input_ids if prompt is None else prompt
        return 0 if prompt is None else prompt.shape[1]

    @property
    def most_new_tokens(self) -> int:
        """Maximum number of new tokens that the settings allow."""
        most: int | None = self.config.max_new_tokens
        if most is not None:
            return most
        return self.config.max_length - (self.prompt_length if self.limits_length else 0)

    @property
    def caches(self) -> bool:
        """Whether a KV cache is used. With ``inputs_embeds`` it is, even if ``use_cache=False``."""
        return self.arguments.get("inputs_embeds") is not None or self.setting("use_cache") is not False

    def setting(self, name: str) -> Any:
        """Return a generation setting. None if it has no value."""
        return getattr(self.config, name, None)


@dataclass
class Generation:
    """One running call of ``generate``, in the thread that runs it.

    Attributes
    ----------
    prompt_length : int
        Number of given token ids, which the output repeats.
    ids : Tensor or None
        ``[samples, tokens]`` long: the given token ids. In a call with embeddings, the ids that they represent.
    drafts : bool
        Whether forward passes have draft tokens after the sequence.
    caches : bool
        Whether a KV cache is used.
    recorder : Recorder or None
        Set by the prefill.
    cache : Cache or None
        The cache in use.
    ranking : Tensor or None
        ``[batch]`` long: slot of the last prompt token, set by the prefill.
    encodings : Encodings or None
        Images encoded before the first forward pass.
    guidance : Tensor or None
        ``[samples, prompt tokens]`` float32: scores from the guide model, for a method that uses one.
    guided : GuideRecord or None
        Measurements of the guide model.
    """

    prompt_length: int
    ids: Tensor | None
    drafts: bool
    caches: bool
    recorder: Recorder | None = None
    cache: Cache | None = None
    ranking: Tensor | None = None
    encodings: Encodings | None = None
    guidance: Tensor | None = None
    guided: GuideRecord | None = None

    def end(self, output: Any) -> None:
        """Record the generated tokens."""
        if self.recorder is not None:
            sequences = output if isinstance(output, Tensor) else output.sequences
            self.recorder.end_generation(sequences.shape[1] - self.prompt_length, self.cache)


def begin_generation(call: GenerateCall, acts_in_decode: bool, longest: int | None = None) -> Generation:
    """Check a call of ``generate``. A call that cannot be trimmed correctly is refused before any computation.

    Parameters
    ----------
    call : GenerateCall
        The call.
    acts_in_decode : bool
        Whether the method trims the cache in decode.
    longest : int, optional
        Number of tokens of the longest sequence that can be trimmed.

    Raises
    ------
    UnsupportedGenerationError
        If the call is not supported. The message names the reason and the fix.
    """
    check_kernel(call.text_config)
    _check_cache_settings(call, acts_in_decode)
    if call.cache is not None:
        check_cache(call.cache)
    _check_loop(call, acts_in_decode)
    check_length(call.prompt_length + call.most_new_tokens, longest)
    ids = call.input_ids
    return Generation(
        prompt_length=0 if ids is None else ids.shape[1],
        ids=ids,
        drafts=call.setting("prompt_lookup_num_tokens") is not None,
        caches=call.caches,
    )


def check_router_logits(call: Mapping[str, Any], config: Any) -> None:
    """Refuse the load-balancing loss of a mixture of experts, which needs the mask of all tokens.

    Raises
    ------
    UnsupportedGenerationError
        If router logits are requested together with labels. The message names the fix.
    """
    asked = call.get("output_router_logits")
    asked = getattr(config, "output_router_logits", False) if asked is None else asked
    if asked and call.get("labels") is not None:
        refuse("the load-balancing loss of a mixture of experts", "leave out `output_router_logits`, or `labels`")


def check_layer_cuts(call: dict[str, Any], config: Any, recomputes: bool) -> None:
    """Refuse options that are not available if layers have structural cuts.

    Raises
    ------
    UnsupportedGenerationError
        If attention maps are asked for, or layers are recomputed for the gradient.
    """
    asked = call.get("output_attentions")
    if config.output_attentions if asked is None else asked:
        raise UnsupportedGenerationError(
            "there are no attention maps if a method cuts inside the layers: leave out `output_attentions`"
        )
    if recomputes:
        raise UnsupportedGenerationError(
            "vistrim does not support activation checkpointing with a method that cuts inside the layers: "
            "call model.activation_checkpointing_disable()"
        )


def check_length(tokens: int, longest: int | None) -> None:
    """Refuse a sequence longer than ``longest``, from which on attention depends on row indices.

    Raises
    ------
    UnsupportedGenerationError
        If the sequence is longer. The message names the fix.
    """
    if longest is not None and tokens > longest:
        refuse(
            f"sequences of more than {longest} tokens in this model, whose attention then depends on row indices",
            f"keep prompt and answer within {longest} tokens (max_new_tokens)",
        )


def refuse_continuous_batching(*args: Any, **kwargs: Any) -> None:
    """Refuse the methods of a model for continuous batching.

    Raises
    ------
    UnsupportedGenerationError
        Always.
    """
    refuse("continuous batching, whose paged cache it cannot trim", "use model.generate()")


def check_kernel(config: Any) -> None:
    """Refuse an attention kernel that is not known to work with fewer tokens.

    Raises
    ------
    UnsupportedGenerationError
        If it is not SDPA, eager attention or FlashAttention.
    """
    kernel = config._attn_implementation or "eager"
    if kernel not in ATTENTION_KERNELS and not is_flash(kernel):
        raise UnsupportedGenerationError(
            f"vistrim does not support attention {kernel!r}: call model.set_attn_implementation('sdpa') (or "
            "'eager', or 'flash_attention_2')"
        )


def _check_cache_settings(call: GenerateCall, acts_in_decode: bool) -> None:
    cache = call.setting("cache_implementation")
    if call.caches and cache not in (None, "dynamic"):
        refuse(
            f"cache_implementation={cache!r}, from which tokens cannot be removed",
            "leave it out to use the default dynamic cache",
        )
    if call.setting("prefill_chunk_size") is not None:
        refuse("chunked prefill, which would rank each chunk by its own last token", "leave out `prefill_chunk_size`")
    if not call.caches and acts_in_decode:
        refuse("decode-time trimming without a KV cache", "leave out `use_cache=False`, or use vistrim.PVTP()")


def _check_loop(call: GenerateCall, acts_in_decode: bool) -> None:
    setting, given = call.setting, call.arguments
    if given.get("custom_generate") is not None:
        refuse("a custom generation loop", "leave out `custom_generate`")
    mode = call.config.get_generation_mode(given.get("assistant_model"))
    if mode is GenerationMode.ASSISTED_GENERATION:
        _check_drafts(call, acts_in_decode)
    processors = given.get("logits_processor") or []
    guided = any(isinstance(p, UnbatchedClassifierFreeGuidanceLogitsProcessor) for p in processors)
    if guided or setting("guidance_scale") not in (None, 1, 1.0):
        refuse(
            "classifier-free guidance, which runs a second sequence within the generation", "leave out `guidance_scale`"
        )
    if mode in _LOOPS:
        loop, names = _LOOPS[mode]
        refuse(loop, f"leave out {names} and use greedy search, sampling or beam search")


def _check_drafts(call: GenerateCall, acts_in_decode: bool) -> None:
    drafting = (call.arguments.get("assistant_model"), call.setting("assistant_early_exit"))
    if any(by is not None for by in drafting):
        refuse("assisted decoding with a draft model", "use `prompt_lookup_num_tokens` or plain decoding")
    if call.setting("use_mtp"):
        refuse("multi-token prediction", "leave out `use_mtp`")
    if acts_in_decode:
        refuse(
            "prompt-lookup decoding with decode-time trimming, because drafts may be rejected after an eviction",
            "use a method that trims in prefill only, such as vistrim.PVTP()",
        )
    if any(sliding_windows(call.text_config)):
        refuse("prompt-lookup decoding with a sliding window", "leave out `prompt_lookup_num_tokens`")


def refuse(reason: str, fix: str) -> None:
    """Raise the error that names the unsupported feature and the fix."""
    raise UnsupportedGenerationError(f"vistrim does not support {reason}: {fix}")
