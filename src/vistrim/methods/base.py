"""What a trimming method is: three stages, each of which decides which visual tokens stay.

A method never touches hidden states, positions, masks or caches. It is given a view of the tokens and answers with
a `Selection`; the engine does the rest. A method that overrides nothing keeps everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from vistrim.core.selection import Selection, keep_top


@dataclass(frozen=True)
class InputTokens:
    """The prompt before decoder layer 0.

    Attributes
    ----------
    embeddings : Tensor
        ``[batch, tokens, hidden]``: word embeddings, and projected image features at visual tokens.
    visual : Tensor
        ``[batch, tokens]`` bool.
    images : tuple of tuple of int
        Visual tokens of each image of each sample, in prompt order.
    grid : tuple of int
        Rows and columns of the visual tokens of one image.
    """

    embeddings: Tensor
    visual: Tensor
    images: tuple[tuple[int, ...], ...]
    grid: tuple[int, int]


@dataclass(frozen=True)
class LayerTokens:
    """The tokens that a decoder layer would process (prefill) or holds in its cache (decode).

    Attributes
    ----------
    scores : Tensor
        ``[batch, tokens]`` float32: attention received at the layer before, from the last prompt token in
        prefill and from the token being generated in decode; mean over heads. In decode, tokens that the
        layer before no longer holds have a negative score.
    visual : Tensor
        ``[batch, tokens]`` bool.
    held : tuple of int
        Visual tokens per sample at this layer now.
    initial : tuple of int
        Visual tokens per sample in the prompt.
    depth : int
        Number of decoder layers.
    """

    scores: Tensor
    visual: Tensor
    held: tuple[int, ...]
    initial: tuple[int, ...]
    depth: int


@dataclass(frozen=True)
class Method:
    """Base class of all methods; subclasses are frozen dataclasses that register themselves.

    A new method sets the class variables and overrides the hooks of the stages it acts in.
    """

    name: ClassVar[str]
    """Name on the command line and in reports."""
    summary: ClassVar[str]
    """One line: what it does."""
    stages: ClassVar[tuple[str, ...]]
    """Where it acts: "input" (before the LLM), "prefill", "decode"."""
    needs: ClassVar[str] = "nothing"
    """What it asks of the model."""
    source: ClassVar[str]
    """Paper or origin."""

    def __str__(self) -> str:
        """Name and parameters in the notation of the command line, e.g. ``st3:ratio=0.3,stride=4``."""
        params = ",".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))
        return f"{self.name}:{params}" if params else self.name

    @property
    def acts_in_decode(self) -> bool:
        """Whether the KV cache is trimmed while tokens are generated."""
        return "decode" in self.stages

    def check(self, depth: int) -> None:
        """Refuse a decoder of ``depth`` layers that the parameters do not fit.

        Raises
        ------
        ValueError
            With the fix in its message.
        """

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose the visual tokens that enter the decoder; None keeps all."""
        return None

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Layers before which `select_prefill` is to be asked; each needs the scores of the layer before it."""
        return ()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Choose the visual tokens that layer ``layer`` and all later ones still process; None keeps all."""
        return None

    def decode_counts(self, layer: int, step: int, initial: Sequence[int], depth: int) -> tuple[int, ...] | None:
        """Visual tokens per sample that the cache of ``layer`` may hold at decoding step ``step``; None: no limit.

        The engine asks before it computes any score, and passes on only what is below the tokens held.
        """
        return None

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the ``counts[b]`` visual tokens that stay in the cache of ``layer``: those with the highest score."""
        return keep_top(tokens.scores, tokens.visual, counts)
