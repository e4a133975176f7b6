"""QueCC's network: cross-attention from a few query-conditioned tokens to the patches under each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

AUTHORS_STATES, AUTHORS_DEPTH = (12, 16, 22, 23), 24
"""Hidden states of CLIP-L that the authors read keys and values from, and its blocks."""


@dataclass(frozen=True)
class CompressorShape:
    """Sizes of a compressor.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of an image's patches.
    stride : int
        Side of the square block of patches that becomes one token; divides both sides of the grid.
    width : int
        Of a patch's features, and of everything up to the projector.
    states : int
        Width of the concatenated hidden states that keys and values are made of.
    hidden : int
        The language model's hidden size.
    heads : int
        Attention heads; divide ``width``.

    Raises
    ------
    ValueError
        If the stride does not divide the grid, or the heads the width.
    """

    grid: tuple[int, int]
    stride: int
    width: int
    states: int
    hidden: int
    heads: int = 8

    def __post_init__(self) -> None:
        rows, columns = self.grid
        if self.stride < 1 or rows % self.stride or columns % self.stride:
            raise ValueError(f"stride={self.stride}: must divide both sides of the grid of {rows} x {columns} patches")
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"heads={self.heads}: must divide the width {self.width}")

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Tokens that an image is compressed to."""
        return self.patches // self.stride**2

    @property
    def flops(self) -> int:
        """FLOPs of compressing one image for one question: 2 per multiply-add of the matrix products."""
        n, m, d = self.patches, self.tokens, self.width
        question = self.hidden * d
        queries = 2 * n * d * d + n * d
        keys_and_values = 2 * n * (self.states * d + d * d)
        attention = 2 * m * d * d + 2 * n * d * d + 2 * n * d
        projector = m * (d * self.hidden + self.hidden * self.hidden)
        return 2 * (question + queries + keys_and_values + attention + projector)

    def notes(self) -> dict[str, str]:
        """The sizes as a file's settings."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["grid"] = "x".join(map(str, self.grid))
        # "hidden" is the model's, and noted with it.
        return {name: str(value) for name, value in values.items() if name != "hidden"}

    @staticmethod
    def read(settings: Mapping[str, str]) -> CompressorShape:
        """The sizes from a file's settings."""
        rows, columns = map(int, settings["grid"].split("x"))
        numbers = {name: int(settings[name]) for name in ("stride", "width", "states", "hidden", "heads")}
        return CompressorShape((rows, columns), **numbers)


class Compressor(nn.Module):
    r"""Compress the patches of an image to a few tokens, for a question.

    With patch features :math:`X`, concatenated hidden states :math:`X^+` and the question embedding :math:`e`:

    .. math::
        X' &= X + LN(W_t e) \\
        Q &= DWConv_{k = stride = s}(MLP_q(X')), \quad K = MLP_k(X^+), \quad V = MLP_v(X^+) \\
        o &= MHA(Q; K_{block}, V_{block}) \\
        tokens &= MLP(o)

    The first three MLPs are Linear, GELU, Linear, LayerNorm; the last one is a projector of LLaVA's shape. Each query
    attends only to the ``stride x stride`` block of patches under it, and there is no residual.

    Parameters
    ----------
    shape : CompressorShape
    """

    def __init__(self, shape: CompressorShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.question = nn.Sequential(nn.Linear(shape.hidden, width), nn.LayerNorm(width))
        self.query = _mlp(width, width)
        self.pool = nn.Conv2d(width, width, shape.stride, shape.stride, groups=width)
        self.key = _mlp(shape.states, width)
        self.value = _mlp(shape.states, width)
        self.attention = nn.MultiheadAttention(width, shape.heads, batch_first=True)
        self.projector = nn.Sequential(nn.Linear(width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.hidden))

    def forward(self, features: Tensor, states: Tensor, questions: Tensor) -> Tensor:
        """Compress each image for each of its questions.

        Parameters
        ----------
        features : Tensor
            ``[images, patches, width]``.
        states : Tensor
            ``[images, patches, states]``.
        questions : Tensor
            ``[images, questions, hidden]``.

        Returns
        -------
        Tensor
            ``[images, questions, tokens, hidden]``.
        """
        images, asked, _ = questions.shape
        width, tokens = self.shape.width, self.shape.tokens
        conditioned = features[:, None] + self.question(questions)[:, :, None]
        on_grid = self.query(conditioned).view(images * asked, *self.shape.grid, width).permute(0, 3, 1, 2)
        queries = self.pool(on_grid).flatten(2).view(images, asked, width, tokens)
        # Every block is a sample of its own, so that its queries see nothing else.
        queries = queries.permute(0, 3, 1, 2).flatten(0, 1)
        found, _ = self.attention(
            queries, self._blocks(self.key(states)), self._blocks(self.value(states)), need_weights=False
        )
        return self.projector(found.view(images, tokens, asked, width).transpose(1, 2))

    def _blocks(self, patches: Tensor) -> Tensor:
        """``[images, patches, width]`` to ``[images * tokens, patches in a block, width]``."""
        side = self.shape.stride
        rows, columns = (n // side for n in self.shape.grid)
        blocks = patches.view(-1, rows, side, columns, side, patches.shape[-1]).transpose(2, 3)
        return blocks.reshape(-1, side * side, patches.shape[-1])


def recorded_blocks(depth: int) -> tuple[int, ...]:
    """Blocks (0-based) of a vision tower of ``depth`` blocks whose outputs make keys and values.

    The authors' hidden states 12, 16, 22 and 23 of 24 at the same shares of the depth, each once.
    """
    numbers = {max(1, round(number * depth / AUTHORS_DEPTH)) for number in AUTHORS_STATES}
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    return tuple(number - 1 for number in sorted(numbers))


def token_places(shape: CompressorShape) -> Tensor:
    """``[patches]`` bool: the last patch of each block, whose place in the prompt the block's token takes."""
    last = torch.zeros(shape.grid, dtype=torch.bool)
    last[shape.stride - 1 :: shape.stride, shape.stride - 1 :: shape.stride] = True
    return last.flatten()


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
