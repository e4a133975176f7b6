"""QueCC's network: a few query-conditioned tokens, each of which cross-attends to its own block of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

AUTHORS_STATES, AUTHORS_DEPTH = (12, 16, 22, 23), 24
"""Hidden states of CLIP-L from which the authors compute keys and values, and the number of its blocks."""


@dataclass(frozen=True)
class CompressorShape:
    """Sizes of a compressor.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of patches per image.
    stride : int
        Side, in patches, of the square block that becomes one token. Must divide both sides of the grid.
    width : int
        Width of the patch features and of all layers up to the projector.
    states : int
        Width of the concatenated hidden states from which keys and values are computed.
    hidden : int
        Hidden size of the language model.
    heads : int
        Number of attention heads. Must divide ``width``.

    Raises
    ------
    ValueError
        If ``stride`` does not divide the grid, or ``heads`` does not divide ``width``.
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
        """Patches per image."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Visual tokens per image after compression."""
        return self.patches // self.stride**2

    @property
    def flops(self) -> int:
        """FLOPs to compress one image for one question: 2 per multiply-add of the matrix products."""
        n, m, d = self.patches, self.tokens, self.width
        question = self.hidden * d
        queries = 2 * n * d * d + n * d
        keys_and_values = 2 * n * (self.states * d + d * d)
        attention = 2 * m * d * d + 2 * n * d * d + 2 * n * d
        projector = m * (d * self.hidden + self.hidden * self.hidden)
        return 2 * (question + queries + keys_and_values + attention + projector)

    def notes(self) -> dict[str, str]:
        """Convert the sizes to the metadata of a file.

        Returns
        -------
        dict of str to str
            The sizes by name, without ``hidden``.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["grid"] = "x".join(map(str, self.grid))
        # "hidden" belongs to the model and is stored with it.
        return {name: str(value) for name, value in values.items() if name != "hidden"}

    @staticmethod
    def read(settings: Mapping[str, str]) -> CompressorShape:
        """Read the sizes from the metadata of a file.

        Parameters
        ----------
        settings : mapping of str to str
            The sizes by name, as `notes` returns them, and ``hidden``.

        Returns
        -------
        CompressorShape
            The sizes.

        Raises
        ------
        KeyError
            If a size is missing.
        ValueError
            If a size is not a number, or the sizes do not fit together.
        """
        rows, columns = map(int, settings["grid"].split("x"))
        numbers = {name: int(settings[name]) for name in ("stride", "width", "states", "hidden", "heads")}
        return CompressorShape((rows, columns), **numbers)


class Compressor(nn.Module):
    r"""Compress the patches of an image to a few tokens, given a question.

    With patch features :math:`X`, concatenated hidden states :math:`X^+` and the question embedding :math:`e`:

    .. math::
        X' &= X + LN(W_t e) \\
        Q &= DWConv_{k = stride = s}(MLP_q(X')), \quad K = MLP_k(X^+), \quad V = MLP_v(X^+) \\
        o &= MHA(Q; K_{block}, V_{block}) \\
        tokens &= MLP(o)

    The first three MLPs are Linear, GELU, Linear, LayerNorm. The last one is a projector as in LLaVA. Each query
    attends only to its own ``stride x stride`` block of patches. There is no residual connection.

    Parameters
    ----------
    shape : CompressorShape
        Sizes of the network.
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
        """Compress each image once per question.

        Parameters
        ----------
        features : Tensor
            Patch features ``[images, patches, width]``.
        states : Tensor
            Concatenated hidden states ``[images, patches, states]``.
        questions : Tensor
            Question embeddings ``[images, questions, hidden]``.

        Returns
        -------
        Tensor
            Visual tokens ``[images, questions, tokens, hidden]``.
        """
        images, asked, _ = questions.shape
        width, tokens = self.shape.width, self.shape.tokens
        conditioned = features[:, None] + self.question(questions)[:, :, None]
        on_grid = self.query(conditioned).view(images * asked, *self.shape.grid, width).permute(0, 3, 1, 2)
        queries = self.pool(on_grid).flatten(2).view(images, asked, width, tokens)
        # Each block is its own batch entry, so that its queries see only its patches.
        queries = queries.permute(0, 3, 1, 2).flatten(0, 1)
        found, _ = self.attention(
            queries, self._blocks(self.key(states)), self._blocks(self.value(states)), need_weights=False
        )
        return self.projector(found.view(images, tokens, asked, width).transpose(1, 2))

    def _blocks(self, patches: Tensor) -> Tensor:
        """Group patches ``[images, patches, width]`` into blocks.

        Returns
        -------
        Tensor
            ``[images * tokens, patches in a block, width]``.
        """
        side = self.shape.stride
        rows, columns = (n // side for n in self.shape.grid)
        blocks = patches.view(-1, rows, side, columns, side, patches.shape[-1]).transpose(2, 3)
        return blocks.reshape(-1, side * side, patches.shape[-1])


def recorded_blocks(depth: int) -> tuple[int, ...]:
    """List the vision-tower blocks whose outputs are used for keys and values.

    The authors use hidden states 12, 16, 22 and 23 of 24. They are scaled to ``depth``, without duplicates.

    Parameters
    ----------
    depth : int
        Number of blocks of the vision tower.

    Returns
    -------
    tuple of int
        Block numbers, 0-based and ascending.
    """
    numbers = {max(1, round(number * depth / AUTHORS_DEPTH)) for number in AUTHORS_STATES}
    # Hidden states count from the embeddings: number 1 is the output of block 0.
    return tuple(number - 1 for number in sorted(numbers))


def token_places(shape: CompressorShape) -> Tensor:
    """Mark the last patch of each block. The token of the block takes its place in the prompt.

    Parameters
    ----------
    shape : CompressorShape
        Sizes of the network.

    Returns
    -------
    Tensor
        ``[patches]`` bool.
    """
    last = torch.zeros(shape.grid, dtype=torch.bool)
    last[shape.stride - 1 :: shape.stride, shape.stride - 1 :: shape.stride] = True
    return last.flatten()


def _mlp(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
