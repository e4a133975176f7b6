"""What a trimming method is: three stages, each of which decides which visual tokens stay.

A method never touches hidden states, positions, masks or caches. It is given a view of the tokens and answers with
a `Selection`; the engine does the rest. A method that overrides nothing keeps everything.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection, keep_top
from vistrim.core.structure import LayerStructure
from vistrim.errors import MethodError
from vistrim.methods.base.method_file import write_method_file
from vistrim.methods.base.parameter_text import HasNotation, is_written, parameter_hints, write_value
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens

Positions = Literal["original", "renumber"]
"""RoPE positions of the tokens that are left: "original", each keeps its own; "renumber", consecutive ones."""


SHOWN = 16
"""Numbers up to which the content of a wrong tensor is shown."""
LONGEST = 300
"""Characters that are shown of any other wrong answer."""

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
class Method(HasNotation):
    """Base class of all methods; subclasses are frozen dataclasses.

    A new method overrides the hooks of the stages it acts in. The class variables say what is listed of it, and
    what it asks of the engine.
    """

    name: ClassVar[str] = "method"
    """Name in the notation and in reports; by default the class's, as in ``my-method`` for ``MyMethod``."""
    summary: ClassVar[str] = ""
    """One line: what it does."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Where it acts: "input" (before the LLM), "structure" (inside the layers), "prefill", "decode"; by default where
    a hook is overridden."""
    needs: ClassVar[str] = "nothing"
    """What it asks of the model."""
    kv_cache: ClassVar[str] = ""
    """What it does to the KV cache of visual tokens."""
    source: ClassVar[str] = ""
    """Paper or origin."""
    ranks_by: ClassVar[Ranking] = "layer before"
    """What scores the cuts in prefill."""
    reads_question: ClassVar[bool] = False
    """Whether `select_input` is given the question embedding, for which the decoder reads the question first."""
    reads_words: ClassVar[bool] = False
    """Whether `select_input` is given which of the prompt's tokens are the question."""
    reads_prompt: ClassVar[bool] = False
    """Whether `select_prefill` reads the prompt's text although nothing scores the cut."""
    reads_vision: ClassVar[bool] = False
    """Whether `select_input` is given what the vision tower computed: see `vision_blocks` and those behind it."""
    reads_class_token: ClassVar[bool] = False
    """Whether it is also given the tower's class tokens, where there are any."""
    shrinks_images: ClassVar[bool] = False
    """Whether images are shrunk before the vision tower: see `shrunk_grid`."""
    reads_features: ClassVar[bool] = False
    """Whether `select_prefill` ranks by features: it is given the final normalisation, and looks at keys."""
    caution: ClassVar[str] = ""
    """What everyone who uses it should know about its answers; among the warnings of each report."""
    budget_parameter: ClassVar[str] = ""
    """Parameter that `vistrim.at_budget` sets: by default to the share that stays, see `with_share`."""
    unbudgeted: ClassVar[str] = "it declares no budget_parameter"
    """Reason for which `vistrim.at_budget` refuses a method without `budget_parameter`."""
    needs_grid: ClassVar[bool] = False
    """Whether `select_input` needs images whose visual tokens form a grid."""

    _registered: ClassVar[type | None] = None
    """Set by `vistrim.methods.register`: the class that is found by this name."""
    _finds_stages: ClassVar[bool] = False
    """Whether ``stages`` are those of the overridden hooks."""

    def __init_subclass__(cls, **extra: Any) -> None:
        super().__init_subclass__(**extra)
        if "name" not in vars(cls):
            cls.name = kebab_case(cls.__name__)
        given = (base for base in cls.__mro__ if "stages" in vars(base) and not vars(base).get("_finds_stages"))
        if next(given) is Method:
            cls._finds_stages = True
            cls.stages = tuple(stage for stage, hook in _HOOKS if getattr(cls, hook) is not getattr(Method, hook))

    def __str__(self) -> str:
        """Name and parameters in the notation, e.g. ``st3:drop_per_cut=0.3,stride=4``; a model by its name."""
        hints = parameter_hints(type(self))
        params = ",".join(f"{name}={write_value(getattr(self, name), hint)}" for name, hint in hints.items())
        return f"{self.name}:{params}" if params else self.name

    def to_dict(self) -> dict[str, str]:
        """The method as plain data, from which `vistrim.method_from_dict` builds an equal one.

        Returns
        -------
        dict
            ``{"method": notation}``.

        Raises
        ------
        MethodError
            If the notation cannot say what the method is: a parameter holds an object, such as a loaded model, or the
            class is not registered.
        """
        cls = type(self)
        if cls._registered is not cls:
            raise MethodError(
                f"{cls.__name__} is not registered, so that no notation names it: decorate the class with "
                "@vistrim.methods.register"
            )
        for name, hint in parameter_hints(cls).items():
            value = getattr(self, name)
            if not is_written(value, hint):
                raise MethodError(
                    f"{self.name}: {name} holds a {type(value).__name__} that the notation cannot write down: give "
                    f"the name or the file of it instead, as in '{self.name}:{name}=NAME'"
                )
        return {"method": str(self)}

    def save(self, folder: str | Path) -> None:
        """Write ``vistrim.json`` into a folder, such as a checkpoint's, for `vistrim.load_method`.

        Parameters
        ----------
        folder : str or Path
            Made where it is missing; a file that is there is replaced. Files that a parameter names are not copied.

        Raises
        ------
        MethodError
            See `to_dict`.
        """
        write_method_file(folder, self.to_dict())

    @property
    def acts_in_decode(self) -> bool:
        """Whether the KV cache is trimmed while tokens are generated."""
        return "decode" in self.stages

    @property
    def renumbers(self) -> bool:
        """Whether the tokens that are left get consecutive RoPE positions: as its ``positions`` say, if it has any."""
        return bool(getattr(self, "positions", "original") == "renumber")

    @property
    def shrunk_grid(self) -> Grid | None:
        """Rows and columns of patches of the images that a fitted method has shrunk.

        Their features stand in the first places of each image, and zeros in the others; images then have no grid.
        """
        return None

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

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """Blocks (0-based) of the vision tower whose queries and keys `select_input` asks for."""
        return ()

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose the visual tokens that enter the decoder; None keeps all."""
        return None

    def with_share(self, share: float, model: ModelFacts) -> "Method":
        """Return the method with its `budget_parameter` set.

        Parameters
        ----------
        share : float
            In (0, 1]. The number of visual tokens must not fall as it rises, and 1 should keep as much as possible.
        model : ModelFacts
            The model.

        Returns
        -------
        Method
            A method of the same kind.
        """
        return replace(self, **{self.budget_parameter: share})

    def input_count(self, sample: SampleSizes) -> int:
        """Compute how many visual tokens of a prompt `select_input` keeps, without any tensor.

        Parameters
        ----------
        sample : SampleSizes
            The prompt.

        Returns
        -------
        int
            Visual tokens that enter the decoder.

        Raises
        ------
        MethodError
            If the method does not tell.
        """
        if type(self).select_input is Method.select_input:
            return sample.visual
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override input_count")

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Compute how many visual tokens of a sample `select_prefill` keeps, without any tensor.

        Parameters
        ----------
        layer : int
            Layer of the cut.
        initial, held : int
            Visual tokens that entered the decoder, and those held before the cut.
        images : int
            Images, tiles or frames of the prompt.
        depth : int
            Number of decoder layers.

        Returns
        -------
        int
            Visual tokens from this layer on.

        Raises
        ------
        MethodError
            If the method does not tell, or the number depends on the content of the prompt.
        """
        if type(self).select_prefill is Method.select_prefill:
            return held
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override prefill_count")

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


_HOOKS = (
    ("input", "select_input"),
    ("structure", "structure"),
    ("prefill", "select_prefill"),
    ("decode", "decode_counts"),
)
"""Stages, and the hook that a method overrides to act in each."""


def kebab_case(name: str) -> str:
    """``my-method`` for ``MyMethod``, ``st3`` for ``ST3``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.strip("_")).replace("_", "-").lower()


def refuse_answer(method: Method, hook: str, answer: Any, problem: str) -> NoReturn:
    """Refuse what a method returned.

    Raises
    ------
    MethodError
        That names the method and what it returned.
    """
    if isinstance(answer, torch.Tensor):
        text = f"a tensor {list(answer.shape)} of {answer.dtype}"
        text += f" ({answer.tolist()})" if answer.numel() <= SHOWN else ""
    else:
        text = repr(answer)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    raise MethodError(f"{method.name}: {hook} returned {' '.join(text.split())}: {problem}")
