"""VisionZip: the patches that the class token attends to, and a few tokens that gather up the others."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vistrim.core.contextual import gather_up
from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import budget, check_keep
from vistrim.methods.base.method import Method, Positions, check_positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, Over, PerImage, check_over
from vistrim.methods.base.registry import register


@register
@dataclass(frozen=True)
class VisionZip(PerImage):
    r"""Let the dominant tokens of each image into the decoder, and a few contextual ones made of all others.

    *Dominant*: the class token itself, projected like a patch, and the ``dominant - 1`` patches that it attends to most
    in the block of the vision tower whose output becomes the visual tokens. *Contextual*: of the R other patches in
    raster order, every ``R // contextual``-th is a target, and each further one joins the target with the highest
    cosine of keys (of this block, mean over heads). A contextual token is
    :math:`h_t + \frac1{|M|} \sum_{m \in M} h_m` of the target and its members, before the projector; alone a target is
    itself. The decoder gets the class token, the dominant patches in raster order, then the contextual tokens.

    Parameters
    ----------
    dominant : int or float
        Dominant tokens per image, class token included: a whole number from 2 on, or a share in (0, 1] of its tokens.
    contextual : int or float
        Contextual tokens per image: a whole number from 0 on, or a share in (0, 1], of which there is at least one. The
        authors use 54 and 10; 108 and 20, and 162 and 30, are usual for 128 and 192 tokens.
    over : {"tile", "image", "prompt"}
        Among which tokens is chosen together, and for which the numbers are: each tile of an image or frame of a video,
        as the authors do; an image or video with all of them; all of a prompt.
    positions : {"renumber", "original"}
        RoPE positions: consecutive ones in the authors' order; or each token keeps its own, a contextual token that of
        its target, and the class token that of the first patch which has gone.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2412.04467 (CVPR 2025) and github.com/dvlab-research/VisionZip at 3151f6d, training-free. A contextual
    token is a sum of target and mean in the code, about twice as long as a token, and so it is here. Scores and keys
    are in float32.

    In a tower without a class token, patches are ranked by the mean attention that they receive
    (`vistrim.methods.base.class_attention.ClassAttention`), and all dominant tokens are patches. Where a visual token
    is made of several tokens of the tower, merging is done behind the projector, on embeddings: so do ports to
    Qwen2.5-VL. An image with no more tokens than asked for stays as it is. In tiled images the class token and the
    contextual tokens of each tile stay with the tile, where the code puts those of all tiles behind the image; both
    leave separators out.
    """

    name = "visionzip"
    summary = "Keeps the patches that the class token attends to, and gathers up the others in a few tokens"
    needs = "attention and keys of a block of the vision tower, its class token and the projector (where there are)"
    source = "arXiv 2412.04467"
    reads_vision = True
    reads_class_token = True

    budget_parameter = "dominant"

    dominant: int | float = 54
    contextual: int | float = 10
    over: Over = "tile"
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("dominant", self.dominant)
        check_keep("contextual", self.contextual, least=0)
        check_over(self.over)
        check_positions(self.positions)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """The block that makes the visual tokens."""
        return (feature_block,)

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """The same."""
        return (feature_block,)

    def count(self, n: int, grid: Grid | None, images: int) -> int:
        """Return the number of dominant and contextual tokens."""
        numbers = (self.dominant, self.contextual)
        return min(n, sum(budget(k if isinstance(k, float) else k * images, n) for k in numbers if k))

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Keep a share of all tokens, with the same ratio of dominant and contextual ones."""
        if self.contextual and isinstance(self.dominant, float) != isinstance(self.contextual, float):
            raise ValueError("visionzip has no ratio of a share to a number: write dominant and contextual alike")
        total = self.dominant + self.contextual
        contextual = share * self.contextual / total if self.contextual else 0
        return replace(self, dominant=share * self.dominant / total, contextual=contextual)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep dominant tokens, and make contextual ones."""
        assert image.features is not None
        assert image.embeddings is not None
        n, contextual = image.n, image.budget(self.contextual) if self.contextual else 0
        with_class = image.class_state is not None and image.project is not None
        patches = image.budget(self.dominant) - with_class
        if patches + contextual + with_class >= n:
            return ImageChoice(torch.arange(n))
        (scores,), (keys,) = image.attention.values(), image.keys.values()
        states = image.features if image.project is not None else image.embeddings
        found = gather_up(scores, keys, states, patches, contextual)
        made = found.features.to(states)
        keep = torch.cat([found.dominant, found.targets])
        if with_class:
            assert image.class_state is not None
            place = _first_gone(keep, n)
            keep, made = torch.cat([keep, place]), torch.cat([made, image.class_state[None].to(made)])
        if image.project is not None:
            made = image.project(made)
        behind = self._behind(found.dominant, found.targets, keep[len(keep) - with_class :], n)
        return ImageChoice(keep, made=made if len(made) else None, behind=behind)

    def _behind(self, dominant: Tensor, targets: Tensor, place: Tensor, n: int) -> Tensor | None:
        """Where tokens go: contextual ones to the end, and dominant ones in front of the class token behind it."""
        if not self.renumbers:
            return None
        behind = torch.full((n,), -1, device=dominant.device).index_fill(0, targets, n - 1)
        return behind.scatter(0, dominant, torch.where(dominant < place, place, -1)) if len(place) else behind


def _first_gone(keep: Tensor, n: int) -> Tensor:
    """``[1]`` long: the first of n tokens that is not kept."""
    return torch.zeros(n, dtype=torch.uint8, device=keep.device).index_fill(0, keep, 1).argmin(0, keepdim=True)
