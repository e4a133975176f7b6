"""Checkpoints as subjects: their own weights, images of noise, and a text of exactly the requested length."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vistrim.benchmark.images import impossible
from vistrim.benchmark.inputs import visual_tokens
from vistrim.benchmark.memory import Needs, needs
from vistrim.benchmark.memory_limit import check_memory
from vistrim.benchmark.subject import Wanted
from vistrim.benchmark.weights import generate_to_the_end, use_kernel
from vistrim.engine import describe
from vistrim.errors import BenchmarkError
from vistrim.loading import building_error, fingerprint, load, load_config, load_processor, resolve_dtype
from vistrim.prompting import check_context, format_prompts, prompt_format

WIDTH, HEIGHT = 1024, 768
"""Pixels of an image, before the processor resizes it."""
FILLERS = (" describe", " the", " picture", " a", ".")
"""Words that make a text longer; together, they reach any length with every known tokenizer."""


def make_from_checkpoint(wanted: Wanted, device: torch.device) -> tuple[Any, dict[str, Tensor], dict[str, str]]:
    """Load a checkpoint and make prompts for it with its own processor.

    Parameters
    ----------
    wanted : Wanted
        Request; its ``model`` is a name for `vistrim.load`.
    device : torch.device
        Device of the model.

    Returns
    -------
    model : PreTrainedModel
    inputs : dict of str to Tensor
    details : dict of str to str
        Fingerprint of the weights, so that results of different weights are not mixed; images of each sample; format of
        the prompts.

    Raises
    ------
    BenchmarkError
        If scaling is requested, the processor cannot make such a prompt, or memory is too small.
    LoadError, UnsupportedModelError, PromptError
        If it cannot be loaded or trimmed, or the prompt outgrows its context.
    """
    scaled = [name for name in ("layers", "hidden", "distinct_layers") if getattr(wanted, name) is not None]
    if scaled:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in scaled)
        raise BenchmarkError(f"{wanted.model} is a checkpoint and cannot be scaled: leave out {names}")
    processor = load_processor(wanted.model)
    config = load_config(wanted.model)
    dtype = resolve_dtype(wanted.dtype)
    if not isinstance(dtype, torch.dtype):
        dtype = config.dtype or config.get_text_config().dtype or torch.float32
    sized = _without_weights(config, dtype, wanted.attn)

    inputs, images = _prompts(sized, processor, wanted)
    check_context(sized, inputs, wanted.new_tokens)
    # The size of quantized weights is not known before they are loaded.
    if getattr(config, "quantization_config", None) is None:
        check_memory(wanted, device, _needs_of(sized, inputs), {"batch": range(1, wanted.batch)})
    model, _ = load(wanted.model, dtype=wanted.dtype, device=str(device))
    use_kernel(model, wanted.attn)
    pad = processor.tokenizer.pad_token_id
    generate_to_the_end(model, processor.tokenizer.eos_token_id or 0 if pad is None else pad)
    details = {"weights": fingerprint(model, processor), "images": images, "prompts": prompt_format(processor).name}
    return model, dict(inputs.to(device, dtype=model.dtype)), details


def _without_weights(config: Any, dtype: torch.dtype, attn: str | None) -> Any:
    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:
        raise building_error(config.model_type, error) from error
    use_kernel(model, attn)
    return model


def _needs_of(sized: Any, inputs: Any) -> Callable[[Wanted], Needs]:
    batch = len(inputs["input_ids"])

    def needed(wanted: Wanted) -> Needs:
        # All samples have the same size, so that tensors shrink with the number of samples.
        fewer = {name: tensor[: len(tensor) * wanted.batch // batch] for name, tensor in inputs.items()}
        return needs(sized, fewer, wanted.new_tokens)

    return needed


def _prompts(sized: Any, processor: Any, wanted: Wanted) -> tuple[Any, str]:
    spec = describe(sized)
    generator = torch.Generator().manual_seed(0)

    def shown(count: int) -> list[Image.Image]:
        noise = torch.randint(256, (count, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)
        return [Image.fromarray(pixels.numpy()) for pixels in noise]

    one = visual_tokens(spec, format_prompts(processor, [""], [shown(1)])["input_ids"])
    visual = wanted.visual_tokens or one
    if visual % one:
        below = visual // one * one
        raise impossible(visual, {below, below + one}, f"{one} for each image")
    count = visual // one
    example = shown(count)

    def length(text: str) -> int:
        inputs = format_prompts(processor, [text], [example])
        return inputs["input_ids"].shape[1] - visual_tokens(spec, inputs["input_ids"])

    text = text_of(wanted.text_tokens, length)
    inputs = format_prompts(processor, [text] * wanted.batch, [shown(count) for _ in range(wanted.batch)])
    if (made := visual_tokens(spec, inputs["input_ids"])) != visual:
        raise BenchmarkError(
            f"{count} images have {made} visual tokens in {wanted.model}, not {visual}: use --visual-tokens {one}"
        )
    return inputs, f"{count} of {HEIGHT} x {WIDTH} pixels before the processor"


def text_of(tokens: int, length: Callable[[str], int]) -> str:
    """Make a text with which a prompt has exactly the given number of tokens beside its visual ones.

    Parameters
    ----------
    tokens : int
        Requested number of tokens.
    length : callable
        Returns the number of tokens of the prompt with a text, without visual tokens.

    Raises
    ------
    BenchmarkError
        If the prompt without any text is longer, or no text of this length was found.
    """
    text, have = "", length("")
    if have > tokens:
        raise BenchmarkError(f"the prompt has {have} tokens without any text: use --text-tokens {have} or more")

    for filler in FILLERS:
        # As often as fits: at most once for each missing token.
        low, high = 0, tokens - have
        while low < high:
            middle = (low + high + 1) // 2
            if length(text + filler * middle) <= tokens:
                low = middle
            else:
                high = middle - 1
        text += filler * low
        have = length(text)
        if have == tokens:
            return text
    raise BenchmarkError(f"found no text of exactly {tokens} tokens for this tokenizer: use --text-tokens {have}")
