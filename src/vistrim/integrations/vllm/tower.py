"""Values that a method reads from a vision tower of vLLM, which returns its output only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.scores import AttentionRows, Softmax
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods import PerImage, VisionTokens

INSTEAD = "use a method that reads no attention, such as divprune"


class Reader(ABC):
    """Reads attention, queries, keys and class tokens while a tower encodes images.

    Attention, queries and keys come from the inputs of a block's attention kernel.

    Parameters
    ----------
    method : PerImage
        The method that reads the tower.
    kernels : sequence of nn.Module
        Modules of the attention kernels, of the blocks up to the one whose output becomes the visual tokens.

    Raises
    ------
    UnsupportedGenerationError
        If the method reads blocks that the tower does not have, or outputs of single blocks.
    """

    def __init__(self, method: PerImage, kernels: Sequence[Any]) -> None:
        last = len(kernels) - 1
        try:
            self._attention, self._keys = method.vision_blocks(last), method.vision_keys(last)
            states = method.vision_states(last)
        except ValueError as error:
            raise UnsupportedGenerationError(f"{method}: {error}") from error
        read = {*self._attention, *self._keys}
        if not read <= set(range(len(kernels))):
            raise UnsupportedGenerationError(
                f"{method} reads blocks {sorted(read)} of the vision tower, of which vLLM runs {len(kernels)}: "
                f"{INSTEAD}"
            )
        if states:
            raise UnsupportedGenerationError(
                f"{method} reads outputs of blocks of the vision tower, which the vLLM plug-in does not: {INSTEAD}"
            )
        self._expected = {
            ("output", -1),
            *(("attention", block) for block in self._attention),
            *((what, block) for what in ("queries", "keys") for block in self._keys),
        }
        self._rows: dict[tuple[str, int], Tensor] = {}
        for number in read:
            kernels[number].register_forward_pre_hook(partial(self._read_kernel, number), with_kwargs=True)

    @abstractmethod
    def _read_kernel(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Store what is read from the inputs of the attention kernel of a block."""

    def _taken(self) -> dict[tuple[str, int], Tensor]:
        """Return what was read since the last call, and forget it."""
        rows, self._rows = self._rows, {}
        if rows.keys() != self._expected:
            raise UnsupportedGenerationError(
                "the vision tower ran as a compiled graph, so that nothing could be read from it: start vLLM without "
                f"compilation of the encoder, or {INSTEAD}"
            )
        return rows


class TowerReader(Reader):
    """Reads a tower that encodes a batch of images of one size.

    The kernels are called with queries, keys and values ``[images, tokens, heads * head_dim]``, and the output is
    ``[images, tokens, width]``.

    Parameters
    ----------
    method, kernels
        As in `Reader`.
    output : nn.Module
        The module whose output, or the last of several, becomes the visual tokens.
    heads : int
        Attention heads of a block.
    has_class : bool
        Whether the first token of the tower is a class token.
    skip : int
        Number of tokens at the beginning of an image that do not become visual tokens.
    project : callable or None
        The projector, for rows ``[n, width]``. None if it reads several blocks.

    Raises
    ------
    UnsupportedGenerationError
        As in `Reader`.
    """

    def __init__(
        self,
        method: PerImage,
        kernels: Sequence[Any],
        output: nn.Module,
        heads: int,
        has_class: bool,
        skip: int,
        project: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__(method, kernels)
        output.register_forward_hook(self._read_output)
        self._heads, self._has_class, self._skip, self._project = heads, has_class, skip, project
        self._classes = method.reads_class_token and has_class

    def take(self) -> list[VisionTokens]:
        """Return the values of the images that were encoded last, and forget them.

        Returns
        -------
        list of VisionTokens
            One entry per image or tile, for its visual tokens.

        Raises
        ------
        UnsupportedGenerationError
            If the tower did not run as ordinary code, so that nothing was read.
        """
        rows = self._taken()
        output = rows["output", -1]
        kept = slice(self._skip, None)
        return [
            VisionTokens(
                attention={block: rows["attention", block][image, kept] for block in self._attention},
                features=output[image, kept],
                source=torch.empty(0, dtype=torch.long),
                queries={block: rows["queries", block][image, kept] for block in self._keys},
                keys={block: rows["keys", block][image, kept] for block in self._keys},
                class_states=output[image, :1].expand_as(output[image])[kept] if self._classes else None,
                project=self._project,
            )
            for image in range(len(output))
        ]

    def _read_kernel(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        query, key = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in args[:2])
        if number in self._keys:
            self._rows["queries", number], self._rows["keys", number] = query.float().mean(1), key.float().mean(1)
        if number in self._attention:
            self._rows["attention", number] = received(query[:, :, :1] if self._has_class else query, key)

    def _read_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._rows["output", -1] = output if isinstance(output, Tensor) else output[-1]


class PackedTowerReader(Reader):
    """Reads a tower that encodes images of any size as one sequence, with attention within images or windows.

    The kernels are called by name with ``query`` and ``key`` ``[1, tokens, heads, head_dim]`` and ``cu_seqlens``, the
    first token of each image or window and the number of tokens.

    Parameters
    ----------
    method, kernels
        As in `Reader`.
    norm : nn.Module
        The module whose input ``[tokens, 1, width]`` becomes the visual tokens: hooks of the blocks are not called,
        because vLLM can compile them.

    Raises
    ------
    UnsupportedGenerationError
        As in `Reader`.
    """

    def __init__(self, method: PerImage, kernels: Sequence[Any], norm: nn.Module) -> None:
        super().__init__(method, kernels)
        norm.register_forward_pre_hook(self._read_input)

    def take(self, sizes: Sequence[int]) -> list[VisionTokens]:
        """Return the values of the images that were encoded last, and forget them.

        Parameters
        ----------
        sizes : sequence of int
            Number of tokens of each image.

        Returns
        -------
        list of VisionTokens
            One entry per image, for the tokens of the tower in their order.

        Raises
        ------
        UnsupportedGenerationError
            If the tower did not run as ordinary code, so that nothing was read.
        """
        split = {of: value.split(list(sizes)) for of, value in self._taken().items()}
        return [
            VisionTokens(
                # A row gives no attention to tokens outside of its window.
                attention={block: split["attention", block][image] / size for block in self._attention},
                features=split["output", -1][image][:, 0],
                source=torch.empty(0, dtype=torch.long),
                queries={block: split["queries", block][image] for block in self._keys},
                keys={block: split["keys", block][image] for block in self._keys},
            )
            for image, size in enumerate(sizes)
        ]

    def _read_kernel(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        query, key = (kwargs[name].transpose(1, 2) for name in ("query", "key"))
        if number in self._keys:
            self._rows["queries", number], self._rows["keys", number] = query[0].float().mean(0), key[0].float().mean(0)
        if number in self._attention:
            lengths = kwargs["cu_seqlens"].diff().tolist()
            if sum(lengths) != key.shape[2]:
                raise UnsupportedGenerationError(
                    "the attention kernel of the vision tower does not tell where images begin: start vLLM with "
                    f"--mm-encoder-attn-backend TORCH_SDPA, or {INSTEAD}"
                )
            parts = zip(query.split(lengths, 2), key.split(lengths, 2), lengths, strict=True)
            self._rows["attention", number] = torch.cat([received(q, k)[0] * rows for q, k, rows in parts if rows])

    def _read_input(self, module: nn.Module, args: Any) -> None:
        self._rows["output", -1] = args[0]


def received(query: Tensor, key: Tensor) -> Tensor:
    """Compute the mean attention that each token receives, over heads and queries.

    Parameters
    ----------
    query : Tensor
        ``[images, heads, queries, head_dim]``.
    key : Tensor
        ``[images, heads, tokens, head_dim]``.

    Returns
    -------
    Tensor
        ``[images, tokens]`` float32.
    """
    images, _, tokens, size = key.shape
    places = torch.arange(query.shape[2], device=key.device).expand(images, -1)
    return AttentionRows(query, key, None, Softmax(size**-0.5), tokens, places).received()
