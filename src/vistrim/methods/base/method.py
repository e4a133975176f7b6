"""Base class of trimming methods.

A method decides which visual tokens stay, at up to four stages. It never changes hidden states, positions, masks or
caches itself: it receives a view of the tokens and returns a `Selection`, which the engine carries out. A method that
overrides no hook keeps everything.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""RoPE positions of the remaining tokens: "original" keeps them, "renumber" makes them consecutive."""


SHOWN = 16
"""Largest number of elements of a wrong tensor that an error message prints."""
LONGEST = 300
"""Largest number of characters of any other wrong return value that an error message prints."""

Ranking = Literal["layer before", "layer ahead", "guide", "nothing"]
"""Source of the attention that scores the tokens: the layer before a cut, the layer after it, a guide model or none."""


@dataclass(frozen=True)
class Guidance:
    """Settings of a method that ranks by a guide model.

    The guide model is a smaller model that answers the prompt first. Its attention scores the visual tokens. If its
    confidence is high enough, its answer is returned and the large model does not run.

    Attributes
    ----------
    guide : nn.Module
        A multimodal model for generation, with the same visual tokens.
    exit_threshold : float or None
        Confidence above which the answer of the guide model is returned. None: no early exit.
    consistency_share : float
        Share of the visual tokens, those with the highest score, with which the guide model reads its answer again to
        compute the confidence.
    """

    guide: nn.Module
    exit_threshold: float | None
    consistency_share: float


@dataclass(frozen=True)
class Method(HasNotation):
    """Base class of all methods. Subclasses are frozen dataclasses.

    A new method overrides the hooks of the stages at which it acts. The class variables describe it in lists and tell
    the engine which inputs it needs.
    """

    name: ClassVar[str] = "method"
    """Name in the notation and in reports. The default is the class name, as ``my-method`` for ``MyMethod``."""
    summary: ClassVar[str] = ""
    """One line that describes the method."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Stages: "input" (before the decoder), "structure" (inside its layers), "prefill", "decode".
    The default is the stages whose hooks are overridden."""
    needs: ClassVar[str] = "nothing"
    """Requirements on the model, as text for lists."""
    kv_cache: ClassVar[str] = ""
    """Effect on the KV cache of visual tokens, as text for lists."""
    source: ClassVar[str] = ""
    """Paper or other origin."""
    ranks_by: ClassVar[Ranking] = "layer before"
    """Source of the attention that scores the cuts in prefill."""
    averages_layers: ClassVar[bool] = False
    """Whether the scores of a cut in prefill are the mean over all layers since the previous cut, and not those of the
    layer before alone. For ``ranks_by`` "layer before"."""
    reads_question: ClassVar[bool] = False
    """Whether `select_input` receives the embedding of the question. The decoder then reads the question first."""
    reads_words: ClassVar[bool] = False
    """Whether `select_input` receives a mask of the tokens of the question."""
    reads_prompt: ClassVar[bool] = False
    """Whether `select_prefill` reads the text of the prompt although no attention scores the cut."""
    reads_vision: ClassVar[bool] = False
    """Whether `select_input` receives outputs of the vision tower: see `vision_blocks` and the hooks after it."""
    reads_class_token: ClassVar[bool] = False
    """Whether `select_input` also receives the class tokens of the vision tower, if it has any."""
    shrinks_images: ClassVar[bool] = False
    """Whether images are shrunk before the vision tower: see `shrunk_grid`."""
    reads_features: ClassVar[bool] = False
    """Whether `select_prefill` ranks by features. It then receives the final normalization and the keys."""
    caution: ClassVar[str] = ""
    """Warning about the answers, shown to all users of the method in each report."""
    budget_parameter: ClassVar[str] = ""
    """Parameter that `vistrim.at_budget` sets. The default meaning is the share that stays: see `with_share`."""
    unbudgeted: ClassVar[str] = "it declares no budget_parameter"
    """Reason for which `vistrim.at_budget` refuses a method without `budget_parameter`."""
    needs_grid: ClassVar[bool] = False
    """Whether `select_input` needs images whose visual tokens form a grid."""

    _registered: ClassVar[type | None] = None
    """Class registered under this name. Set by `vistrim.methods.register`."""
    _finds_stages: ClassVar[bool] = False
    """Whether ``stages`` is derived from the overridden hooks."""

    def __init_subclass__(cls, **extra: Any) -> None:
        super().__init_subclass__(**extra)
        if "name" not in vars(cls):
            cls.name = kebab_case(cls.__name__)
        given = (base for base in cls.__mro__ if "stages" in vars(base) and not vars(base).get("_finds_stages"))
        if next(given) is Method:
            cls._finds_stages = True
            cls.stages = tuple(stage for stage, hook in _HOOKS if getattr(cls, hook) is not getattr(Method, hook))

    def __str__(self) -> str:
        """Return the name and parameters in the notation, such as ``st3:drop_per_cut=0.3,stride=4``.

        A parameter that holds a model is written as the name of the model.

        Returns
        -------
        str
            The notation.
        """
        hints = parameter_hints(type(self))
        params = ",".join(f"{name}={write_value(getattr(self, name), hint)}" for name, hint in hints.items())
        return f"{self.name}:{params}" if params else self.name

    def to_dict(self) -> dict[str, str]:
        """Return the method as plain data.

        `vistrim.method_from_dict` builds an equal method from it.

        Returns
        -------
        dict
            ``{"method": notation}``.

        Raises
        ------
        MethodError
            If the notation cannot express the method: a parameter holds an object, such as a loaded model, or the class
            is not registered.
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
        """Write ``vistrim.json`` to a folder, such as a checkpoint, for `vistrim.load_method`.

        Parameters
        ----------
        folder : str or Path
            Created if it does not exist. An existing file is replaced. Files that a parameter names are not copied.

        Raises
        ------
        MethodError
            If the notation cannot express the method: see `to_dict`.
        """
        write_method_file(folder, self.to_dict())

    @property
    def acts_in_decode(self) -> bool:
        """Whether the KV cache is trimmed during decode."""
        return "decode" in self.stages

    @property
    def renumbers(self) -> bool:
        """Whether the remaining tokens get consecutive RoPE positions: True if ``positions`` is "renumber"."""
        return bool(getattr(self, "positions", "original") == "renumber")

    @property
    def remark(self) -> str:
        """What a file has decided about a fitted method, for its line in reports. Empty by default."""
        return ""

    @property
    def shrunk_grid(self) -> Grid | None:
        """Rows and columns of patches of the shrunk images, for a fitted method. None: images are not shrunk.

        The features of a shrunk image occupy its first visual tokens and the others are zero. Such images have no grid.
        """
        return None

    @property
    def guidance(self) -> Guidance | None:
        """Settings of the guide model, for a fitted method that ranks by one. None for other methods."""
        return None

    @property
    def acting_stages(self) -> tuple[str, ...]:
        """Stages at which the method acts with its present parameters."""
        return tuple(stage for stage in self.stages if stage != "decode" or self.acts_in_decode)

    def fitted(self, model: ModelFacts) -> "Method":
        """Return the method as it runs on a model.

        The default returns the method itself. Override it to check parameters or to derive values from the model.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        Method
            The method, with everything filled in that depends on the model.

        Raises
        ------
        ValueError
            If the parameters do not fit the model. The message names the fix.
        """
        return self

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """Count the FLOPs of the networks that belong to the method.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.
        visual_per_layer : sequence of int
            Visual tokens of the sample that each decoder layer processes in prefill.

        Returns
        -------
        int
            FLOPs for one sample, two per multiply-add. 0 by default.
        """
        return 0

    def structure(self, model: ModelFacts) -> tuple[LayerStructure, ...] | None:
        """Return the structural cuts of each layer.

        They apply to the visual tokens that the layer still holds.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        tuple of LayerStructure or None
            One per decoder layer. None: no layer has any.
        """
        return None

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose attention `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.

        Raises
        ------
        ValueError
            If the parameters do not fit the vision tower.
        """
        return ()

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose output `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.
        """
        return ()

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """Return the blocks of the vision tower whose queries and keys `select_input` needs.

        Parameters
        ----------
        feature_block : int
            Block (0-based) whose output becomes the visual tokens.

        Returns
        -------
        tuple of int
            Blocks, 0-based. Empty by default.
        """
        return ()

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Choose the visual tokens that enter the decoder.

        Parameters
        ----------
        tokens : InputTokens
            The prompt before decoder layer 0.

        Returns
        -------
        Selection or None
            The visual tokens to keep. None keeps all.
        """
        return None

    def with_share(self, share: float, model: ModelFacts) -> "Method":
        """Return the method with its `budget_parameter` set.

        Parameters
        ----------
        share : float
            In (0, 1]. The number of visual tokens must not fall as it rises, and 1 should keep as many as possible.
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        Method
            A method of the same class.
        """
        return replace(self, **{self.budget_parameter: share})

    def input_count(self, sample: SampleSizes) -> int:
        """Compute how many visual tokens of a prompt `select_input` keeps, without tensors.

        Parameters
        ----------
        sample : SampleSizes
            Sizes of the prompt and its images.

        Returns
        -------
        int
            Visual tokens that enter the decoder.

        Raises
        ------
        MethodError
            If the method overrides `select_input` but not this hook.
        """
        if type(self).select_input is Method.select_input:
            return sample.visual
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override input_count")

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Compute how many visual tokens of a sample `select_prefill` keeps, without tensors.

        Parameters
        ----------
        layer : int
            Decoder layer of the cut, 0-based.
        initial : int
            Visual tokens of the sample that entered the decoder.
        held : int
            Visual tokens of the sample before the cut.
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
            If the method overrides `select_prefill` but not this hook, or the number depends on the content of the
            prompt.
        """
        if type(self).select_prefill is Method.select_prefill:
            return held
        raise MethodError(f"{self.name} does not tell how many tokens it keeps: override prefill_count")

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layers before which `select_prefill` is called.

        Parameters
        ----------
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int
            Decoder layers, 0-based and at least 1. Empty by default.
        """
        return ()

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the text tokens whose attention ranks visual tokens in prefill.

        Parameters
        ----------
        embeddings : Tensor
            ``[batch, tokens, hidden]``: input of decoder layer 0.
        visual : Tensor
            ``[batch, tokens]`` bool, True for visual tokens.
        prompt : Tensor
            ``[batch, tokens]`` bool. False for padding and for tokens after the prompt (drafts, answers).

        Returns
        -------
        Tensor or None
            ``[batch, tokens]`` bool, True for these tokens. None: the last prompt token.
        """
        return None

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Compute the scores of a cut in prefill from the attention of the query rows.

        Parameters
        ----------
        attention : AttentionRows
            Attention of the query rows.
        visual : Tensor
            ``[batch, tokens]`` bool, True for visual tokens.

        Returns
        -------
        Tensor
            ``[batch, tokens]`` float32. By default, the mean attention received over heads and rows.
        """
        return attention.received()

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Choose the visual tokens that a layer and all later layers process.

        Parameters
        ----------
        layer : int
            Decoder layer of the cut, 0-based.
        tokens : LayerTokens
            The tokens before this layer.

        Returns
        -------
        Selection or None
            The visual tokens to keep. None keeps all.
        """
        return None

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Return how many visual tokens the cache of a layer may hold at a step of decode.

        The engine calls this before it computes any score. It calls `select_decode` only if tokens have to be evicted.
        A count above the number of tokens held has no effect.

        Parameters
        ----------
        layer : int
            Decoder layer, 0-based.
        step : int
            Number of generated tokens in the sequence, including the one being processed.
        initial : sequence of int
            Visual tokens per sample that entered the decoder.
        left : sequence of int
            Visual tokens per sample that this layer held after prefill.
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int or None
            Largest number of visual tokens per sample. None: no limit.
        """
        return None

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Choose the visual tokens that stay in the cache of a layer.

        Parameters
        ----------
        layer : int
            Decoder layer, 0-based.
        counts : sequence of int
            Visual tokens to keep per sample.
        tokens : LayerTokens
            The tokens in this layer's cache.

        Returns
        -------
        Selection
            The visual tokens to keep, ``counts[b]`` in sample ``b``. By default, those with the highest score.
        """
        return keep_top(tokens.scores, tokens.visual, counts)


_HOOKS = (
    ("input", "select_input"),
    ("structure", "structure"),
    ("prefill", "select_prefill"),
    ("decode", "decode_counts"),
)
"""Stages, each with the hook that a method overrides to act at it."""


def kebab_case(name: str) -> str:
    """Convert a class name to a method name: ``my-method`` for ``MyMethod``, ``st3`` for ``ST3``.

    Parameters
    ----------
    name : str
        Name of the class.

    Returns
    -------
    str
        The name in lower case, with hyphens between words.
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.strip("_")).replace("_", "-").lower()


def refuse_answer(method: Method, hook: str, answer: Any, problem: str) -> NoReturn:
    """Raise an error about a wrong return value of a hook.

    Parameters
    ----------
    method : Method
        The method.
    hook : str
        Name of the hook.
    answer : object
        The returned value.
    problem : str
        Description of the problem.

    Raises
    ------
    MethodError
        Always. The message names the method and shows the returned value.
    """
    if isinstance(answer, torch.Tensor):
        text = f"a tensor {list(answer.shape)} of {answer.dtype}"
        text += f" ({answer.tolist()})" if answer.numel() <= SHOWN else ""
    else:
        text = repr(answer)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    raise MethodError(f"{method.name}: {hook} returned {' '.join(text.split())}: {problem}")
