"""Number of visual tokens in each layer and at each step of a generation, computed without running the model."""

from __future__ import annotations

from dataclasses import dataclass

from vistrim.core import costs
from vistrim.core.model_facts import ModelFacts
from vistrim.errors import MethodError
from vistrim.methods.base.method import Method
from vistrim.methods.base.sample_sizes import SampleSizes


@dataclass(frozen=True)
class Plan:
    """Prediction for one prompt, with the definitions of `vistrim.TrimReport`.

    Attributes
    ----------
    visual : int
        Visual tokens of the prompt.
    visual_per_layer : tuple of int
        Visual tokens that each layer processes in prefill.
    kv_tokens_per_step : tuple of tuple of int
        Tokens in the KV cache of each layer after prefill and after each decoding step, ``[steps][layers]``.
    kv_fraction_mean : float
        Bytes in the KV cache divided by those of the untouched model, averaged over prefill and the decoding steps.
    prefill_flops, prefill_flops_full : int
        FLOPs of the decoder in prefill with the method, and those of the untouched model.
    method_flops : int
        FLOPs of networks that belong to the method itself.
    """

    visual: int
    visual_per_layer: tuple[int, ...]
    kv_tokens_per_step: tuple[tuple[int, ...], ...]
    kv_fraction_mean: float
    prefill_flops: int
    prefill_flops_full: int
    method_flops: int

    @property
    def average_tokens(self) -> float:
        """Visual tokens that a layer processes in prefill, averaged over the layers."""
        return sum(self.visual_per_layer) / len(self.visual_per_layer)


def make_plan(method: Method, model: ModelFacts, sample: SampleSizes, new_tokens: int) -> Plan:
    """Compute the number of tokens for one prompt.

    Parameters
    ----------
    method : Method
        The method, after `Method.fitted` for this model.
    model : ModelFacts
        Sizes of the model.
    sample : SampleSizes
        Sizes of the prompt.
    new_tokens : int
        Tokens of the answer. Prefill yields the first, so there are ``new_tokens - 1`` decoding steps.

    Returns
    -------
    Plan
        The figures that the report of this generation contains.

    Raises
    ------
    MethodError
        If the token counts depend on the content of the prompt, or if the method makes cuts inside the layers.
    """
    shape = model.decoder
    depth = shape.layers
    if any(not cut.is_full for cut in method.structure(model) or ()):
        raise MethodError(f"{method.name}: the FLOPs of cuts inside the layers cannot be planned")
    cuts = frozenset(method.prefill_layers(depth)) if sample.visual else frozenset()
    entered = held = method.input_count(sample) if sample.visual else 0
    visual = []
    for layer in range(depth):
        if layer in cuts:
            held = method.prefill_count(layer, entered, held, len(sample.images), depth)
        visual.append(held)
    cached, steps = list(visual), [tuple(sample.text + n for n in visual)]
    for step in range(1, new_tokens):
        for layer in range(depth):
            counts = None
            if method.acts_in_decode and sample.visual:
                counts = method.decode_counts(layer, step, (entered,), (visual[layer],), depth)
            cached[layer] = cached[layer] if counts is None else min(cached[layer], counts[0])
        steps.append(tuple(sample.text + n + step for n in cached))
    prompt = sample.text + sample.visual
    entry = [shape.at(layer).cached_per_token for layer in range(depth)]
    shares = [
        sum(n * size for n, size in zip(held_now, entry, strict=True)) / ((prompt + step) * sum(entry))
        for step, held_now in enumerate(steps)
    ]
    return Plan(
        visual=sample.visual,
        visual_per_layer=tuple(visual),
        kv_tokens_per_step=tuple(steps),
        kv_fraction_mean=sum(shares) / len(shares),
        prefill_flops=costs.prefill_flops(shape, [sample.text + n for n in visual]),
        prefill_flops_full=costs.prefill_flops(shape, [prompt] * depth),
        method_flops=method.own_flops(model, visual),
    )
