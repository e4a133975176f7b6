"""What a trimming method is: three stages, each of which decides which visual tokens stay.

A method never touches hidden states, positions, masks or caches. It is given a view of the tokens and answers with
a `Selection`; the engine does the rest. A method that overrides nothing keeps everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vistrim.core.costs import DecoderShape
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection, keep_top
from vistrim.core.structure import LayerStructure

Positions = Literal["original", "renumber"]
"""RoPE positions of the tokens that are left: "original", each keeps its own; "renumber", consecutive ones."""


Ranking = Literal["layer before", "layer ahead", "guide", "nothing"]
"""Whose attention scores the tokens: the layer's that has just run, the one's about to run, a guide's, or none's."""


def check_positions(positions: str) -> None:
    """Refuse anything but a way to give positions."""
    if positions not in ("original", "renumber"):
        raise ValueError(f"positions={positions!r}: must be original or renumber")


def check_layers(name: str, layers: tuple[int, ...], first: int) -> None:
    """Refuse anything but a tuple of rising layer numbers from ``first`` on."""
    fits = isinstance(layers, tuple) and layers and all(type(layer) is int for layer in layers)
    if not fits or layers[0] < first or any(a >= b for a, b in pairwise(layers)):
        raise ValueError(f"{name}={layers!r}: must be a tuple of whole numbers that rise, from {first} on")


def check_layer(name: str, layer: int, depth: int) -> None:
    """Refuse a first cut behind the last layer."""
    if layer >= depth:
        raise ValueError(
            f"{name}={layer}, but the model has {depth} decoder layers (0 to {depth - 1}): "
            f"nothing would be trimmed; choose a smaller {name}"
        )


@dataclass(frozen=True)
class ModelFacts:
    """What a method may know about the model that it is to run on.

    Attributes
    ----------
    name : str
        The checkpoint's name without owner or folders, such as "llava-1.5-7b-hf"; empty if the model has none.
    folder : Path or None
        The checkpoint's folder, if it came from one on this machine.
    decoder : DecoderShape
        Sizes of the decoder.
    grid : tuple of int
        Rows and columns of the visual tokens of one image.
    device : str
        Where it takes its inputs, such as "cpu" or "cuda:0".
    dtype : torch.dtype
        Number type of its embeddings.
    """

    name: str
    folder: Path | None
    decoder: DecoderShape
    grid: tuple[int, int]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Guidance:
    """What a method that ranks by a guide asks for.

    The guide is a smaller model that answers the prompt first. Its attention scores the visual tokens, and where it is
    sure enough of its answer, that is the answer.

    Attributes
    ----------
    guide : nn.Module
        A multimodal model for generation, with the same visual tokens.
    exit_threshold : float or None
        Exit score above which the guide's answer is returned; None: there is no such score.
    consistency_share : float
        Share of the visual tokens, the best ones, with which the guide reads its answer again for that score.
    """

    guide: nn.Module
    exit_threshold: float | None
    consistency_share: float


@dataclass(frozen=True)
class VisionTokens:
    """What the vision tower computed for the visual tokens of a prompt.

    Attributes
    ----------
    attention : mapping of int to Tensor
        For each block that `Method.vision_blocks` asks for, ``[features]`` float32: attention received by each image
        feature of the prompt from the class token or, in a tower without one, from all tokens of its image (mean);
        mean over heads.
    features : Tensor
        ``[features, width]``: the tower's output before the projector.
    source : Tensor
        ``[batch, tokens]`` long: which feature each visual token of the prompt is; -1 for text. The features of an
        image follow each other.
    states : mapping of int to Tensor
        For each block that `Method.vision_states` asks for, ``[features, width]``: its output.
    """

    attention: Mapping[int, Tensor]
    features: Tensor
    source: Tensor
    states: Mapping[int, Tensor] = field(default_factory=dict)


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
    vision : VisionTokens or None
        For methods that ask for blocks of the vision tower.
    depth : int
        Number of decoder layers.
    guidance : Tensor or None
        ``[batch, tokens]`` float32: attention received in the guide, for methods that rank by one: the sum over all
        layers, heads, rows of the question and rows of the guide's answer.
    question : Tensor or None
        ``[batch, hidden]``, for methods that read it: the decoder's last hidden state, after the final normalisation,
        at the last token of the text behind the sample's last image, which it has read alone.
    """

    embeddings: Tensor
    visual: Tensor
    images: tuple[tuple[int, ...], ...]
    grid: tuple[int, int]
    vision: VisionTokens | None = None
    depth: int = 0
    guidance: Tensor | None = None
    question: Tensor | None = None


@dataclass(frozen=True)
class LayerTokens:
    """The tokens that a decoder layer would process (prefill) or holds in its cache (decode).

    Attributes
    ----------
    scores : Tensor
        ``[batch, tokens]`` float32. In prefill what `Method.score` made of the attention at the layer before. In
        decode attention received at the layer before from the token being generated, mean over heads; tokens that the
        layer before no longer holds have a negative score. Zeros for a method that ranks by nothing; for one that ranks
        by a guide, in prefill, as `InputTokens.guidance`.
    visual : Tensor
        ``[batch, tokens]`` bool.
    held : tuple of int
        Visual tokens per sample at this layer now.
    initial : tuple of int
        Visual tokens per sample that entered the decoder.
    depth : int
        Number of decoder layers.
    images : tuple of int
        Images per sample in this prompt; empty in decode.
    hidden : Tensor or None
        ``[batch, tokens, hidden]``: the layer's input, in prefill.
    attention : AttentionRows or None
        What ``scores`` was made of, in prefill; None for a method that ranks by a guide or by nothing.
    prompt : Tensor or None
        ``[batch, tokens]`` bool, in prefill: False for padding and for what is behind the prompt (drafts, answers).
    """

    scores: Tensor
    visual: Tensor
    held: tuple[int, ...]
    initial: tuple[int, ...]
    depth: int
    images: tuple[int, ...] = ()
    hidden: Tensor | None = None
    attention: AttentionRows | None = None
    prompt: Tensor | None = None


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
    """Where it acts: "input" (before the LLM), "structure" (inside the layers), "prefill", "decode"."""
    needs: ClassVar[str] = "nothing"
    """What it asks of the model."""
    kv_cache: ClassVar[str]
    """What it does to the KV cache of visual tokens."""
    source: ClassVar[str]
    """Paper or origin."""
    ranks_by: ClassVar[Ranking] = "layer before"
    """What scores the cuts in prefill."""
    reads_question: ClassVar[bool] = False
    """Whether `select_input` is given the question embedding, for which the decoder reads the question first."""

    def __str__(self) -> str:
        """Name and parameters in the notation of the command line, e.g. ``st3:ratio=0.3,stride=4``."""
        params = ",".join(f"{f.name}={notation(getattr(self, f.name))}" for f in fields(self))
        return f"{self.name}:{params}" if params else self.name

    @property
    def acts_in_decode(self) -> bool:
        """Whether the KV cache is trimmed while tokens are generated."""
        return "decode" in self.stages

    @property
    def guidance(self) -> Guidance | None:
        """The guide of a fitted method that ranks by one."""
        return None

    @property
    def acting_stages(self) -> tuple[str, ...]:
        """Stages in which it does something as it is set."""
        return tuple(stage for stage in self.stages if stage != "decode" or self.acts_in_decode)

    def fitted(self, model: ModelFacts) -> "Method":
        """The method as it runs on a model: itself, or with what depends on the model filled in.

        Raises
        ------
        ValueError
            If the parameters do not fit the model; with the fix in its message.
        """
        return self

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """FLOPs of the method's own networks for a sample of which each layer processed so many visual tokens."""
        return 0

    def structure(self, model: ModelFacts) -> tuple[LayerStructure, ...] | None:
        """What each layer leaves out for the visual tokens that it still has; None: no layer leaves out anything."""
        return None

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Blocks (0-based) of the vision tower whose attention `select_input` asks for.

        ``feature_block`` is the one whose output becomes the visual tokens.

        Raises
        ------
        ValueError
            If the parameters do not fit such a tower.
        """
        return ()

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """Blocks (0-based) of the vision tower whose output `select_input` asks for."""
        return ()

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose the visual tokens that enter the decoder; None keeps all."""
        return None

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Layers before which `select_prefill` is to be asked; layer 0 is none of them."""
        return ()

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the text tokens whose attention ranks visual tokens in prefill; None: the last prompt token.

        Parameters
        ----------
        embeddings : Tensor
            ``[batch, tokens, hidden]``: what enters decoder layer 0.
        visual : Tensor
            ``[batch, tokens]`` bool.
        prompt : Tensor
            ``[batch, tokens]`` bool: False for padding and for what is behind the prompt (drafts, answers).

        Returns
        -------
        Tensor or None
            ``[batch, tokens]`` bool.
        """
        return None

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Turn the attention of the query rows into the scores ``[batch, tokens]`` of a cut in prefill."""
        return attention.received()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Choose the visual tokens that layer ``layer`` and all later ones still process; None keeps all."""
        return None

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Visual tokens per sample that the cache of ``layer`` may hold at decoding step ``step``; None: no limit.

        ``initial`` tokens per sample entered the decoder, and prefill left ``left`` of them in this layer. The engine
        asks before it computes any score, and passes on only what is below the tokens held.
        """
        return None

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the ``counts[b]`` visual tokens that stay in the cache of ``layer``: those with the highest score."""
        return keep_top(tokens.scores, tokens.visual, counts)


def notation(value: Any) -> str:
    """Write a parameter as the command line reads it: ``(2, 6, 15)`` as ``2/6/15``."""
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
