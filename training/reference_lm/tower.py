"""The vision tower in training: a stock CLIP vision model with the heads that only training needs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from training.reference_lm.facts import CLASSES, IDENTITY, PATCH_FACTS, UNKNOWN
from vistrim.reference.lm.scenes import IMAGE_SIZE, PATCH_SIZE

#: Background is nine tenths of an image and easy: it counts less.
BACKGROUND_WEIGHT = 0.1
SCENE_WEIGHT, ATTENTION_WEIGHT, BLANK_WEIGHT = 0.2, 0.1, 0.5

_IDENTITY_CLASSES = CLASSES[: len(IDENTITY)]


def tower_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=8,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="gelu",
    )


class Tower(nn.Module):
    """The tower, a head that names the facts under each patch, and one that names each area's from the class token."""

    def __init__(self, config: CLIPVisionConfig | None = None) -> None:
        super().__init__()
        config = config or tower_config()
        self.vision = CLIPVisionModel(config)
        self.patch_head = nn.Linear(config.hidden_size, sum(CLASSES))
        self.scene_head = nn.Linear(config.hidden_size, 9 * sum(_IDENTITY_CLASSES))
        _initialize(self.vision)

    @property
    def core(self) -> Any:
        """The module with the embeddings and the encoder, which some releases of transformers wrap."""
        return getattr(self.vision, "vision_model", self.vision)

    def forward(self, pixels: torch.Tensor, kept: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(B, 577, width)``, class token first, and its attention ``(B, 576)`` in the last layer.

        Features are what ``vision_feature_layer=-1`` selects; the attention is the mean over heads, fp32. With
        ``kept``, ``(B, K)`` patch numbers, the tower sees those patches only and both answers are about them.
        """
        hidden = self.core.embeddings(pixels)
        if kept is not None:
            patches = hidden[:, 1:].gather(1, kept[..., None].expand(-1, -1, hidden.shape[-1]))
            hidden = torch.cat([hidden[:, :1], patches], 1)
        entering = hidden = self.core.pre_layrnorm(hidden)
        for layer in self.core.encoder.layers:
            entering, hidden = hidden, _only_states(layer(hidden, None))
        return hidden.float(), self._class_attention(entering)

    def _class_attention(self, entering: torch.Tensor) -> torch.Tensor:
        layer = self.core.encoder.layers[-1]
        normed = layer.layer_norm1(entering)
        heads = self.vision.config.num_attention_heads
        query = layer.self_attn.q_proj(normed[:, 0]).unflatten(-1, (heads, -1)).float()
        keys = layer.self_attn.k_proj(normed).unflatten(-1, (heads, -1)).float()
        scores = torch.einsum("bhd,bshd->bhs", query, keys) / math.sqrt(query.shape[-1])
        return scores.softmax(-1).mean(1)[:, 1:]

    def loss(
        self,
        features: torch.Tensor,
        attention: torch.Tensor,
        facts: torch.Tensor,
        areas: torch.Tensor,
        owners: torch.Tensor,
        blank: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch, and its parts.

        Parameters
        ----------
        features, attention : torch.Tensor
            What `forward` gave.
        facts : torch.Tensor
            ``(B, 576, 6)`` facts under each patch.
        areas : torch.Tensor
            ``(S, 9, 6)`` facts of the object in each area, for the first S images: the scenes.
        owners : torch.Tensor
            ``(S, 576)`` area whose object lies under each patch, -1 for background.
        blank : float
            Weight of the demand that background patches look alike.
        """
        scenes = len(areas)
        parts = {
            "patches": self._patch_loss(features[:, 1:], facts),
            "scene": SCENE_WEIGHT * self._scene_loss(features[:scenes, 0], areas),
            "attention": ATTENTION_WEIGHT * attention_loss(attention[:scenes], owners, areas[..., 0] > 0),
            "blank": blank * background_spread(features[:, 1:], facts[..., 0] != 0),
        }
        return sum(parts.values()), {name: part.detach() for name, part in parts.items()}  # type: ignore[return-value]

    def _patch_loss(self, patches: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
        loss = patches.new_zeros(())
        for logits, fact in zip(self.patch_head(patches).float().split(CLASSES, -1), facts.unbind(-1), strict=True):
            weights = torch.where(fact == 0, BACKGROUND_WEIGHT, 1.0) * (fact != UNKNOWN)
            each = F.cross_entropy(logits.flatten(0, 1), fact.flatten(), reduction="none", ignore_index=UNKNOWN)
            loss = loss + (each * weights.flatten()).sum() / weights.sum()
        return loss

    def _scene_loss(self, token: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
        logits = self.scene_head(token).float().unflatten(-1, (9, -1)).split(_IDENTITY_CLASSES, -1)
        each = [F.cross_entropy(x.flatten(0, 1), areas[..., i].flatten()) for i, x in enumerate(logits)]
        return torch.stack(each).sum()

    @torch.no_grad()
    def patch_accuracy(self, patches: torch.Tensor, facts: torch.Tensor) -> dict[str, float]:
        """Share of the patches on objects whose fact is named right, per fact; and of background patches."""
        split = self.patch_head(patches).split(CLASSES, -1)
        right = {}
        for name, logits, fact in zip(PATCH_FACTS, split, facts.unbind(-1), strict=True):
            right[name] = (logits.argmax(-1) == fact)[fact > 0].float().mean().item()
        background = facts[..., 0] == 0
        right["background"] = (split[0].argmax(-1) == 0)[background].float().mean().item()
        return right


def attention_loss(attention: torch.Tensor, owners: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean over objects of minus the log of the class token's attention to their patches, together.

    Lowest where every object gets the same share, whatever its size, and the background none.
    """
    mass = attention.new_zeros(len(attention), 10).scatter_add(1, owners + 1, attention)[:, 1:]
    return -(mass + 1e-6).log()[present].mean()


def background_spread(patches: torch.Tensor, on_object: torch.Tensor) -> torch.Tensor:
    """Variance of background patches over that of objects' patches around the same mean.

    A background patch that differs from the others tells something: of the object beside it, most likely.
    """
    background = ~on_object
    mean = patches[background].mean(0)
    distance = ((patches - mean) ** 2).sum(-1)
    return distance[background].mean() / distance[on_object].mean().detach()


def telling_patches(owners: torch.Tensor, number: int) -> torch.Tensor:
    """Numbers ``(B, number)`` of the patches most worth seeing: on objects, then beside them, then any others.

    Most of an image is background, which is learned long before small objects are: leaving most of it out makes a
    step about three times cheaper.

    Parameters
    ----------
    owners : torch.Tensor
        ``(B, 576)``, at least 0 on objects and -1 on background.
    number : int
    """
    on_object = (owners >= 0).float()
    side = math.isqrt(owners.shape[1])
    near = F.max_pool2d(on_object.unflatten(1, (side, side))[:, None], 3, 1, 1).flatten(1)
    return (on_object + near + torch.rand_like(on_object)).topk(number, 1).indices


def _only_states(given: Any) -> torch.Tensor:
    """A layer's hidden states: older releases of transformers wrap them in a tuple."""
    return given[0] if isinstance(given, tuple) else given


@torch.no_grad()
def class_attention_figures(attention: torch.Tensor, on_object: torch.Tensor) -> dict[str, float]:
    """How the class token's attention finds objects: its mass on them, and the share of them in its top 64."""
    top = torch.zeros_like(on_object)
    top.scatter_(1, attention.topk(64, 1).indices, True)
    found = (top & on_object).sum(1) / on_object.sum(1).clamp(max=64)
    return {"mass": (attention * on_object).sum(1).mean().item(), "top64": found.mean().item()}


@torch.no_grad()
def _initialize(vision: Any) -> None:
    """Standard deviation 1/sqrt(inputs), what writes to the residual stream less; positions from sines.

    The usual 0.02 would leave attention flat for hundreds of steps. Sines let neighbors find each other at once.
    """
    core = getattr(vision, "vision_model", vision)
    depth = len(core.encoder.layers)
    for name, module in core.encoder.named_modules():
        if isinstance(module, nn.Linear):
            scale = (2 * depth) ** -0.5 if name.endswith(("out_proj", "fc2")) else 1.0
            nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    nn.init.normal_(core.embeddings.patch_embedding.weight, std=(3 * PATCH_SIZE**2) ** -0.5)
    positions = core.embeddings.position_embedding.weight
    width = positions.shape[1]
    frequencies = torch.logspace(0, -1.6, width // 4, base=10) * (math.pi / 2)
    grid = math.isqrt(len(positions) - 1)
    angles = torch.arange(grid)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    positions[0].normal_(std=0.5)
    positions[1:] = 0.5 * torch.cat(
        [waves[:, None].expand(grid, grid, -1), waves[None].expand(grid, grid, -1)], -1
    ).flatten(0, 1)
