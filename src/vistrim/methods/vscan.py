"""VScan: keep local and global tokens, merge the others into them, and cut once in the middle of the decoder."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from vistrim.core.groups import ranks, windows
from vistrim.core.model_facts import ModelFacts
from vistrim.core.schedules import budget, check_keep, scaled_to_depth
from vistrim.core.selection import Selection, keep_top
from vistrim.core.similarity import cosines_to
from vistrim.methods.base.checks import check_layer, check_positions
from vistrim.methods.base.composition import Composition
from vistrim.methods.base.method import Method, Positions
from vistrim.methods.base.per_image import ImageChoice, ImageTokens, PerImage
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

SIDE = 4
"""Number of windows along each side of an image."""
SHALLOW, DEEP = 5, 22
"""Blocks (0-based) of CLIP-L whose attention ranks local and global tokens."""
LAYER = 16
"""Layer of the cut in a decoder of 32 layers."""


@register
@dataclass(frozen=True)
class VScan(Composition):
    r"""Keep local and global tokens of each image, merge the others, and cut once in the middle of the decoder.

    *Before the decoder*, T tokens per image are kept. The image is cut into 4 x 4 windows. *Local tokens* are the
    :math:`\lfloor \lfloor T / 2 \rfloor / 16 \rfloor` patches of each window that the class token attends to most in a
    shallow block of the vision tower. *Global tokens* are those of the other patches that it attends to most in the
    block whose output becomes the visual tokens; they fill up to T. Every other token is merged into the kept token
    with the highest cosine of projected features. A merged token is the mean of all tokens in it.

    *Before decoder layer* ``layer``, the tokens stay that the last prompt token attends to most in this layer (mean
    over heads).

    Parameters
    ----------
    keep : int or float
        :math:`T` per image, tile or frame: a whole number of at least 2, or a share in (0, 1].
    layer : int, optional
        First layer (0-based, at least 1) that runs on ``left`` tokens. None: 16 of 32 layers, scaled to the depth of
        the decoder.
    left : int or float
        Tokens per image, tile or frame from this layer on: a whole number of at least 2, or a share in (0, 1] of the
        tokens that entered the decoder. The authors' pairs of ``keep`` and ``left`` are 96 and 32, 192 and 64, and 288
        and 96, of 576.
    positions : {"renumber", "original"}
        RoPE positions of the remaining tokens: consecutive, as in the authors' code, or unchanged.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: arXiv 2505.22654 (TMLR 2026) and github.com/Tencent/SelfEvolvingAgent, folder VScan, at a82450e. If the
    output of block 22 (0-based) becomes the visual tokens, the shallow block is block 5; in other towers it is at the
    same relative depth. Deviations: global tokens fill up to T if T is not a multiple of 32 (the code then keeps
    fewer). Any grid has 16 windows, of sizes as equal as possible (the code requires 24 x 24 patches). For towers
    without a class token see `vistrim.methods.base.class_attention.ClassAttention`.
    """

    name = "vscan"
    summary = "Keeps local and global tokens, merges the others into them, and cuts once in the decoder's middle"
    stages = ("input", "prefill")
    needs = (
        "a token grid, attention of the class token at two blocks of the vision tower, and of one row in the decoder"
    )
    kv_cache = "small in every layer, smaller from the cut on"
    source = "arXiv 2505.22654"

    budget_parameter = "keep"

    keep: int | float = 96
    layer: int | None = None
    left: int | float = 32
    positions: Positions = "renumber"

    def __post_init__(self) -> None:
        check_keep("keep", self.keep)
        check_keep("left", self.left)
        if self.layer is not None and (type(self.layer) is not int or self.layer < 1):
            raise ValueError(f"layer={self.layer}: must be a whole number, at least 1")
        check_positions(self.positions)

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Set ``keep`` to a share. The ratio of ``left`` to ``keep`` stays the same."""
        left = self.left
        if not isinstance(left, float) and not isinstance(self.keep, float):
            left = min(1.0, left / self.keep)
        return replace(self, keep=share, left=left)

    @cached_property
    def parts(self) -> tuple[Method, ...]:
        """The part before the decoder and the part inside it."""
        return LocalAndGlobal(self.keep, self.positions), MiddleCut(self.layer, self.left, self.positions)


@dataclass(frozen=True)
class LocalAndGlobal(PerImage):
    """The part of `VScan` before the decoder.

    Parameters
    ----------
    keep, positions
        As for `VScan`.
    """

    name = "vscan"
    reads_vision = True
    needs_grid = True

    keep: int | float
    positions: Positions

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return a shallow block, and the block whose output becomes the visual tokens."""
        return (feature_block * SHALLOW // DEEP, feature_block)

    def choose(self, image: ImageTokens) -> ImageChoice:
        """Keep local and global tokens, and merge the others.

        Raises
        ------
        ValueError
            If the tokens do not form a grid.
        """
        assert image.embeddings is not None
        rows, columns = image.grid or (0, 0)
        if rows * columns != image.n:
            own = "form none" if image.grid is None else f"are {image.n} instead of {rows} x {columns}"
            raise ValueError(f"vscan needs a grid of tokens, and those of this image {own}: use visionzip instead")
        count = image.budget(self.keep)
        if count == image.n:
            return ImageChoice(torch.arange(count))
        # In a tower with few blocks, both may be the same. Separators rank last.
        scores = [values.nan_to_num(nan=-1.0) for values in image.attention.values()]
        shallow, deep = scores[0], scores[-1]
        each = count // 2 // SIDE**2
        is_local = ranks(shallow, windows(rows, columns, SIDE, shallow.device), SIDE**2) < each
        # Local tokens first, then the others by attention.
        order = deep.masked_fill(is_local, torch.inf).argsort(descending=True, stable=True)
        keep = order[:count].sort().values
        alike = cosines_to(image.embeddings, keep.to(image.embeddings.device)).to(keep.device)
        into = keep[alike.argmax(1)]
        return ImageChoice(keep, into.index_fill(0, keep, -1))


@dataclass(frozen=True)
class MiddleCut(Method):
    """The part of `VScan` inside the decoder.

    Parameters
    ----------
    layer, left, positions
        As for `VScan`.
    """

    name = "vscan"
    stages = ("prefill",)
    ranks_by = "layer ahead"

    layer: int | None
    left: int | float
    positions: Positions

    def fitted(self, model: ModelFacts) -> Method:
        """Return the method with the layer for the depth of the model.

        Raises
        ------
        ValueError
            If the model has no such layer.
        """
        depth = model.decoder.layers
        layer = scaled_to_depth(LAYER, depth) if self.layer is None else self.layer
        check_layer("layer", layer, depth)
        return replace(self, layer=layer)

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layer of the cut."""
        return () if self.layer is None else (self.layer,)

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """Whether ``left`` is a number of tokens per image."""
        return isinstance(self.left, int)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return ``left`` as a number of tokens."""
        return budget(self.left, initial) if isinstance(self.left, float) else min(held, self.left * images)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep the tokens that receive the most attention."""
        counts = tuple(
            self.prefill_count(layer, n, held, images, tokens.depth)
            for n, held, images in zip(tokens.initial, tokens.held, tokens.images, strict=True)
        )
        return replace(keep_top(tokens.scores, tokens.visual, counts), renumber=self.renumbers)
