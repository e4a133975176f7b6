"""The border of one call of ``generate``: what is refused before it starts, and what belongs to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from vistrim.engine.cache import check_cache
from vistrim.engine.recorder import Recorder
from vistrim.errors import UnsupportedGenerationError

ATTENTION_KERNELS = ("sdpa", "eager")


@dataclass
class Generation:
    """One running call of ``generate``, in the thread that runs it.

    Attributes
    ----------
    recorder : Recorder or None
        Set by the prefill.
    ranking : Tensor or None
        ``[batch]`` long: slot of the last prompt token, set by the prefill.
    """

    recorder: Recorder | None = None
    ranking: Tensor | None = None


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


def check_generation(model: PreTrainedModel, acts_in_decode: bool, arguments: Mapping[str, Any]) -> None:
    """Refuse a call of ``generate`` that cannot be trimmed correctly, before any work is done.

    Parameters
    ----------
    model : PreTrainedModel
        The model to generate with.
    acts_in_decode : bool
        Whether the method trims the cache while decoding.
    arguments : mapping
        Keyword arguments of ``generate``.

    Raises
    ------
    UnsupportedGenerationError
        With the reason and the way out.
    """
    sources = (arguments.get("generation_config"), model.generation_config)

    def setting(name: str) -> Any:
        if name in arguments:
            return arguments[name]
        return next((v for s in sources if (v := getattr(s, name, None)) is not None), None)

    def refuse(reason: str, way_out: str) -> None:
        raise UnsupportedGenerationError(f"vistrim does not support {reason}: {way_out}")

    check_kernel(model.config.get_text_config(decoder=True))
    if setting("cache_implementation") not in (None, "dynamic"):
        refuse(
            f"cache_implementation={setting('cache_implementation')!r}, from which tokens cannot be removed",
            "leave it out to use the default dynamic cache",
        )
    if (cache := arguments.get("past_key_values")) is not None:
        check_cache(cache)
    if setting("prefill_chunk_size") is not None:
        refuse(
            "chunked prefill, which would rank each chunk by its own last token",
            "leave out `prefill_chunk_size`",
        )
    if setting("prompt_lookup_num_tokens") is not None and acts_in_decode:
        refuse(
            "prompt-lookup decoding together with decode-time trimming, whose tokens may be taken back",
            "use a method that trims in prefill only, such as vistrim.PVTP()",
        )
    if setting("assistant_model") is not None or setting("assistant_early_exit") is not None:
        refuse("assisted decoding with a draft model", "use `prompt_lookup_num_tokens` or plain decoding")
    if setting("custom_generate") is not None:
        refuse("a custom generation loop", "leave out `custom_generate`")
    if setting("guidance_scale") not in (None, 1, 1.0):
        refuse(
            "classifier-free guidance, which runs a second sequence inside the first",
            "leave out `guidance_scale`",
        )
    for name, mode in _LOOPS_OUTSIDE_TRANSFORMERS.items():
        if setting(name) not in (None, 1):
            refuse(mode, f"leave out `{name}` and use greedy search, sampling or beam search")


_LOOPS_OUTSIDE_TRANSFORMERS = {
    "penalty_alpha": "contrastive search",
    "dola_layers": "DoLa decoding",
    "num_beam_groups": "group beam search",
    "constraints": "constrained beam search",
    "force_words_ids": "constrained beam search",
}
