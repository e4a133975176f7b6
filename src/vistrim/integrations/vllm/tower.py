"""Values that a method reads from a vision tower of vLLM, which returns its output only."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.scores import AttentionRows, Softmax
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods import PerImage, VisionTokens


class TowerReader:
    """Reads attention, keys and class tokens while a tower encodes images.

    Attention and keys come from the inputs of a block's attention kernel.

    Parameters
    ----------
    method : PerImage
        The method that reads the tower.
    kernels : sequence of nn.Module
        Modules of the attention kernels, of the blocks up to the one whose output becomes the visual tokens. Each is
        called with queries, keys and values ``[images, tokens, heads * head_dim]``.
    output : nn.Module
        The module whose output ``[images, tokens, width]``, or the last of several, becomes the visual tokens.
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
        If the method reads blocks that the tower does not have.
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
        last = len(kernels) - 1
        try:
            self._attention, self._keys = method.vision_blocks(last), method.vision_keys(last)
        except ValueError as error:
            raise UnsupportedGenerationError(f"{method}: {error}") from error
        read = {*self._attention, *self._keys}
        if not read <= set(range(len(kernels))):
            raise UnsupportedGenerationError(
                f"{method} reads blocks {sorted(read)} of the vision tower, of which vLLM runs {len(kernels)}: use a "
                "method that reads none, such as divprune"
            )
        self._heads, self._has_class, self._skip, self._project = heads, has_class, skip, project
        self._classes = method.reads_class_token and has_class
        self._rows: dict[tuple[str, int], Tensor] = {}
        for number in read:
            kernels[number].register_forward_pre_hook(partial(self._read_kernel, number))
        output.register_forward_hook(self._read_output)

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
        rows, self._rows = self._rows, {}
        if ("output", -1) not in rows:
            raise UnsupportedGenerationError(
                "the vision tower ran as a compiled graph, so that nothing could be read from it: start vLLM without "
                "compilation of the encoder, or use a method that reads no attention, such as divprune"
            )
        output = rows["output", -1]
        kept = slice(self._skip, None)
        return [
            VisionTokens(
                attention={block: rows["attention", block][image, kept] for block in self._attention},
                features=output[image, kept],
                source=torch.empty(0, dtype=torch.long),
                keys={block: rows["keys", block][image, kept] for block in self._keys},
                class_states=output[image, :1].expand_as(output[image])[kept] if self._classes else None,
                project=self._project,
            )
            for image in range(len(output))
        ]

    def _read_kernel(self, number: int, module: nn.Module, args: Any) -> None:
        query, key = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in args[:2])
        if number in self._keys:
            self._rows["keys", number] = key.float().mean(1)
        if number in self._attention:
            asking = query[:, :, :1] if self._has_class else query
            images, _, tokens, size = key.shape
            places = torch.arange(asking.shape[2], device=key.device).expand(images, -1)
            attention = AttentionRows(asking, key, None, Softmax(size**-0.5), tokens, places)
            self._rows["attention", number] = attention.received()

    def _read_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._rows["output", -1] = output if isinstance(output, Tensor) else output[-1]
