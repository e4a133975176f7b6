"""DyVTE: small routers decide from the question's hidden states at which layer the image is no longer needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from vistrim.core.model_facts import ModelFacts
from vistrim.core.query_text import text_behind_images
from vistrim.core.routing import question_summary, router_logits
from vistrim.core.selection import Selection
from vistrim.methods.base.artifacts import load_part
from vistrim.methods.base.method import Method
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

TRAINING = "vistrim calibrate dyvte"
PARTS = ("w1", "w2")


@register
@dataclass(frozen=True)
class DyVTE(Method):
    r"""Remove all visual tokens of a sample after the first decoder layer whose router decides to exit.

    The router of layer :math:`l` reads the residual stream after that layer, :math:`u_l = [\mathrm{mean}_{t \in T
    \setminus last} x_l^t; x_l^{last}]`, where :math:`T` is the prompt text after the sample's last image. It computes
    two logits, :math:`W_2\,\mathrm{GELU}(W_1 u_l)`, with two linear layers without bias. If the second logit exceeds
    the first, layers from :math:`l + 1` on run without visual tokens. Text keeps its positions. The keys and values of
    layers up to :math:`l` stay in the cache, and decoding attends to them. Routers run only in prefill. Each sample of
    a batch exits at its own layer.

    Parameters
    ----------
    routers : str, optional
        File with routers trained for the model by ``vistrim calibrate dyvte``. None: ``vistrim/dyvte.safetensors`` in
        the model's folder, which the model ``reference`` has.

    Notes
    -----
    Source: arXiv 2411.19628 and github.com/DoubtedSteam/DyVTE at b4a3396. The authors' code supports one sample with
    one image and a fixed prompt. If the question is a single token, its mean is that token. The authors' routers are
    2048 wide for hidden sizes of 4096 and 5120, which is 1.1 to 1.7 GB in bfloat16. Here the width is a setting of the
    training, see `vistrim.calibration.dyvte_routers`. The authors also combine DyVTE with FastV. Here two methods that
    cut in prefill cannot be composed.
    """

    name = "dyvte"
    summary = (
        "Removes all visual tokens at the layer where a trained router decides that the question needs them no longer"
    )
    stages = ("prefill",)
    needs = f"routers trained for the model ({TRAINING})"
    kv_cache = "full up to the exit, no visual tokens after it"
    source = "arXiv 2411.19628"
    ranks_by = "nothing"
    counts_images = False
    reads_prompt = True

    unbudgeted = "its routers decide on the number of tokens for each question"

    routers: str | None = None

    def fitted(self, model: ModelFacts) -> Method:
        """Load the routers.

        Raises
        ------
        ValueError
            If there is no such file, or its routers are for another model.
        """
        part = load_part(self.routers, self.name, model, f"`{TRAINING}`")
        # After the last layer there is no computation left to save.
        layers = range(model.decoder.layers - 1)
        try:
            w1, w2 = (
                torch.stack([part.tensors[f"layers.{layer}.{name}"].float() for layer in layers]) for name in PARTS
            )
        except KeyError as error:
            raise ValueError(f"the routers lack {error}: train them again with `{TRAINING}`") from error
        except RuntimeError as error:
            raise ValueError(f"the routers have different sizes: train them again with `{TRAINING}`") from error
        if w1.shape[2] != 2 * model.decoder.hidden or w2.shape[1:] != (2, w1.shape[1]):
            raise ValueError(f"the sizes of the routers do not match the model: train them with `{TRAINING}`")
        return RoutedDyVTE(self.routers, w1=w1, w2=w2)

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return all layers but the first."""
        return tuple(range(1, depth))


@dataclass(frozen=True)
class RoutedDyVTE(DyVTE):
    """DyVTE with the routers of a model.

    Attributes
    ----------
    w1, w2 : Tensor
        Weights of the first linear layers, ``[layers - 1, width, 2 * hidden]``, and of the second ones,
        ``[layers - 1, 2, width]``, float32.
    """

    name = DyVTE.name

    w1: Tensor = field(kw_only=True, repr=False, compare=False)
    w2: Tensor = field(kw_only=True, repr=False, compare=False)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Keep no visual tokens of the samples that exit."""
        if not any(tokens.held):
            return None
        assert tokens.hidden is not None
        assert tokens.prompt is not None
        question = text_behind_images(tokens.visual, tokens.prompt)
        w1, w2 = self._on(tokens.hidden.device)
        logits = router_logits(question_summary(tokens.hidden, question), w1[layer - 1], w2[layer - 1])
        exits = logits[:, 1] > logits[:, 0]
        counts = tuple(0 if gone else n for gone, n in zip(exits.tolist(), tokens.held, strict=True))
        if counts == tokens.held:
            return None
        return Selection(tokens.visual & ~exits[:, None].to(tokens.visual.device), counts)

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """Count the FLOPs of the routers that ran for the sample: one per layer up to its exit, none after the last."""
        asked = sum(n > 0 for n in visual_per_layer[:-1])
        return 2 * asked * (self.w1[0].numel() + self.w2[0].numel())

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._placed:
            self._placed[device] = self.w1.to(device), self.w2.to(device)
        return self._placed[device]

    @cached_property
    def _placed(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}
