"""The method that an engine of vLLM is started with: read from the model's config, and refused if it cannot work."""

from collections.abc import Mapping
from typing import Any

from vistrim.errors import UnsupportedGenerationError
from vistrim.methods import Method, PerImage
from vistrim.methods.base.composition import methods_in
from vistrim.methods.base.notation import parse_method

KEY = "vistrim"
"""Entry of the model's config that holds the settings."""

EXAMPLE = """--hf-overrides '{"architectures": [...], "vistrim": {"method": "vispruner:keep=64"}}'"""
INSTEAD = "use a selector such as vispruner or divprune"
EMBEDS = "send the embeddings of `vistrim.integrations.vllm.embeds`"
ELSEWHERE = "or serve the model with `vistrim serve`, which runs it with transformers"


def read_method(config: Any, renumbers: bool = True) -> PerImage:
    """Read the method from a model's config.

    Parameters
    ----------
    config : object
        Config of transformers, with an attribute ``vistrim``: ``{"method": notation}``.
    renumbers : bool
        Whether the remaining tokens get consecutive positions in this model.

    Returns
    -------
    PerImage
        The method.

    Raises
    ------
    UnsupportedGenerationError
        If there is no method, it cannot be read, or it cannot work in vLLM. The message names the fix. It is no
        ValueError, which vLLM would take as a sign that the model has no images.
    """
    given = getattr(config, KEY, None)
    if not isinstance(given, Mapping) or set(given) != {"method"} or not isinstance(given["method"], str):
        problem = "is missing" if given is None else f"is {given!r}"
        raise UnsupportedGenerationError(
            f'the entry "{KEY}" of the model\'s config {problem}, but has to hold "method" and a notation: {EXAMPLE}'
        )
    try:
        method = parse_method(given["method"])
    except ValueError as error:
        raise UnsupportedGenerationError(f"the method of {KEY}={given!r}: {error}") from error
    return checked(method, renumbers)


def checked(method: Method, renumbers: bool = True) -> PerImage:
    """Return a method that can work in vLLM.

    There, the number of tokens of an image is fixed before it is encoded, and its embeddings depend on nothing else in
    the prompt, because they are cached for other prompts.

    Parameters
    ----------
    method : Method
        The method.
    renumbers : bool
        As in `read_method`.

    Returns
    -------
    PerImage
        The same method.

    Raises
    ------
    UnsupportedGenerationError
        If it cannot work. The message names the reason and an alternative.
    """
    refuse_decoder_stages(method)
    if method.reads_words or method.reads_question or method.guidance is not None:
        raise UnsupportedGenerationError(
            f"{method.name} reads the question, but vLLM encodes an image without it and reuses the result for other "
            f"questions: {INSTEAD}, or {EMBEDS}"
        )
    if not isinstance(method, PerImage) or type(method).select_input is not PerImage.select_input:
        raise UnsupportedGenerationError(
            f"{method.name} does not choose image by image, but vLLM encodes and caches each image alone: {INSTEAD}, "
            f"or {EMBEDS}"
        )
    if type(method).fitted is not Method.fitted:
        raise UnsupportedGenerationError(
            f"{method.name} is fitted to a model of transformers, which vLLM does not load: {INSTEAD}, {ELSEWHERE}"
        )
    if method.over == "prompt":
        raise UnsupportedGenerationError(
            f"{method.name} chooses among all images of a prompt, but vLLM encodes and caches each image alone: set "
            "over=image"
        )
    if renumbers:
        refuse_original_positions(method)
    elif method.renumbers:
        raise UnsupportedGenerationError(
            f"{method.name} would renumber the remaining tokens, but in this model a position is a time, a row and a "
            "column (M-RoPE): set positions=original"
        )
    return method


def refuse_decoder_stages(method: Method) -> None:
    """Refuse a method that acts inside the decoder.

    Parameters
    ----------
    method : Method
        The method.

    Raises
    ------
    UnsupportedGenerationError
        If it does. The message names an alternative.
    """
    for part in methods_in(method):
        if inside := [stage for stage in part.acting_stages if stage != "input"]:
            raise UnsupportedGenerationError(
                f"{part.name} acts inside the decoder ({', '.join(inside)}), whose paged cache and attention kernels "
                f"belong to vLLM: {INSTEAD}, {ELSEWHERE}"
            )


def refuse_original_positions(method: Method) -> None:
    """Refuse a method that keeps the positions of the remaining tokens.

    Parameters
    ----------
    method : Method
        The method.

    Raises
    ------
    UnsupportedGenerationError
        If it does. The message names the fix.
    """
    for part in methods_in(method):
        if getattr(part, "positions", "renumber") == "original":
            raise UnsupportedGenerationError(
                f"{part.name} is to keep the positions of the remaining tokens, but vLLM numbers tokens consecutively: "
                f"set positions=renumber, {ELSEWHERE}"
            )
