"""Models with random weights, made in place: no initialization that is overwritten, no copy."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedConfig

from vistrim.engine import describe
from vistrim.errors import BenchmarkError

BLOCK = 16_777_213
"""Number of random numbers drawn; a prime, so that no matrix repeats a row. Weights are slices of them."""


def empty_model(config: PreTrainedConfig, dtype: torch.dtype, attn: str | None) -> Any:
    """A model in evaluation mode whose parameters have sizes and no storage; its buffers are real.

    Parameters
    ----------
    config : PreTrainedConfig
        Config with the sizes.
    dtype : torch.dtype
        Dtype of the parameters.
    attn : str or None
        See `use_kernel`.

    Raises
    ------
    BenchmarkError
        If the kernel does not exist, or the model cannot use it.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    use_kernel(model, attn)
    return model.eval()


def use_kernel(model: Any, attn: str | None) -> None:
    """Set the attention kernel of the decoder, and of the vision tower if that supports it.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model.
    attn : str or None
        Name of the kernel; None: the default of transformers for this model.

    Raises
    ------
    BenchmarkError
        If the kernel does not exist, or the model cannot use it; the message names kernels that work.
    """
    if attn is None or (problem := _refusal(model, attn)) is None:
        return
    working = [kernel for kernel in ("sdpa", "eager") if kernel != attn and _refusal(model, kernel) is None]
    raise BenchmarkError(f"attention kernel {attn!r} cannot be used: choose {' or '.join(working)} ({problem})")


def _refusal(model: Any, attn: str) -> str | None:
    """Set the kernel; returns the reason if that fails, and None otherwise."""
    try:
        model.set_attn_implementation(attn)
    except (ValueError, ImportError) as error:
        return " ".join(str(error).split())
    if describe(model).decoder.config._attn_implementation != attn:  # type: ignore[union-attr]
        return f"{type(model).__name__} does not support it"
    return None


def stacks(model: Any) -> list[Sequence[nn.Module]]:
    """The decoder layers, and the blocks of the vision tower: the longest list of modules outside the decoder."""
    spec = describe(model)
    inside = set(map(id, spec.decoder.modules()))
    lists = [tuple(m) for m in model.modules() if isinstance(m, nn.ModuleList) and id(m) not in inside]
    return [spec.layers, *([max(lists, key=len)] if lists else [])]


def shared_parameters(model: Any, distinct_layers: int) -> dict[int, nn.Parameter]:
    """The parameters that share another parameter's tensor if only some layers and blocks have their own weights.

    Returns
    -------
    dict of int to nn.Parameter
        ``id`` of a parameter to the parameter of another layer that replaces it.
    """
    return {
        id(parameter): stack[number % distinct_layers].get_parameter(name)
        for stack in stacks(model)
        for number, layer in enumerate(stack)
        if number >= distinct_layers
        for name, parameter in layer.named_parameters()
    }


def fill(model: Any, distinct_layers: int, device: torch.device, seed: int = 0) -> None:
    """Give an empty model random weights on a device.

    Matrices have a standard deviation of one over the square root of their fan-in, norms and scales are one and biases
    zero, so that hidden states neither vanish nor explode.

    Parameters
    ----------
    model : PreTrainedModel
        A model from `empty_model`.
    distinct_layers : int
        Decoder layers, and blocks of the vision tower, with their own weights; the others share these tensors, in turn.
        Every layer still computes everything. Only memory changes, as long as the distinct layers together are larger
        than the caches of the CPU.
    device : torch.device
        Device of the model.
    seed : int
        Seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(BLOCK, generator=generator).to(device, model.dtype)
    shared = shared_parameters(model, distinct_layers)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            source = shared.get(id(parameter), parameter)
            if id(source) not in made:
                start = int(torch.randint(BLOCK, (), generator=generator))
                made[id(source)] = nn.Parameter(_random(source, name, block, start))
            module.register_parameter(name, made[id(source)])
    model.to(device)


def _random(like: Tensor, name: str, block: Tensor, start: int) -> Tensor:
    weights = torch.empty(like.shape, dtype=block.dtype, device=block.device)
    if like.dim() < 2:
        return weights.fill_(0.0 if name.endswith("bias") else 1.0)
    flat, done = weights.view(-1), 0
    while done < len(flat):
        stretch = block[start : start + len(flat) - done]
        torch.mul(stretch, like[0].numel() ** -0.5, out=flat[done : done + len(stretch)])
        done, start = done + len(stretch), 0
    return weights


def generate_to_the_end(model: Any, pad: int) -> None:
    """Make ``generate`` greedy and run to the requested length, regardless of the model's generation config."""
    model.generation_config = GenerationConfig(pad_token_id=pad, do_sample=False)


def step_bytes(model: Any) -> int:
    """Bytes of weights that a decoding step reads: decoder layers each time they run, final norm and output head."""
    spec = describe(model)
    read = [*spec.layers, model.get_output_embeddings(), *([spec.norm] if spec.norm is not None else [])]
    return sum(parameter.nbytes for module in read for parameter in module.parameters())
