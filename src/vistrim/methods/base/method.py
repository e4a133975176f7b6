"""Base class of trimming methods.

A method decides which visual tokens stay, at up to four stages. It never changes hidden states, positions, masks or
caches itself: it receives a view of the tokens and returns a `Selection`, which the engine carries out. A method that
overrides no hook keeps everything.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.errors import MethodError
from vistrim.methods.base.guidance import Guidance
from vistrim.methods.base.method_file import write_method_file
from vistrim.methods.base.parameter_text import HasNotation, is_written, parameter_hints, write_value
from vistrim.methods.base.stage_hooks import STAGES, StageHooks

Positions = Literal["original", "renumber"]
"""RoPE positions of the remaining tokens: "original" keeps them, "renumber" makes them consecutive."""
Ranking = Literal["layer before", "layer ahead", "guide", "nothing"]
"""Source of the attention that scores the tokens: the layer before a cut, the layer after it, a guide model or none."""
DecodeRows = Literal["token", "answer", "prompt"]
"""Ranking rows while decoding: the token being processed, all tokens of the answer so far, with the last prompt token,
or all text of the prompt after the last image."""


@dataclass(frozen=True)
class Method(StageHooks, HasNotation):
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
    evicts_by: ClassVar[DecodeRows] = "token"
    """Rows whose attention scores the tokens while decoding. For "answer", the attention of every layer is read at
    every step, and for "prompt" in prefill only."""
    counts_images: ClassVar[bool] = True
    """Whether `prefill_count` depends on the number of images. If not, they need not be counted for a cut."""
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
    written_if_set: ClassVar[tuple[str, ...]] = ()
    """Parameters that the notation of the method names only if they differ from their defaults: those that were added
    later, so that notations in earlier results stay the same."""
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
            cls.stages = tuple(
                stage for stage, hook in STAGES.items() if getattr(cls, hook) is not getattr(StageHooks, hook)
            )

    def __str__(self) -> str:
        """Return the name and parameters in the notation, such as ``fastv:layer=2,keep=0.5,positions=original``.

        A parameter that holds a model is written as the name of the model.

        Returns
        -------
        str
            The notation.
        """
        hints = parameter_hints(type(self)).items()
        values = {name: (getattr(self, name), hint) for name, hint in hints if name not in self.unwritten}
        params = ",".join(f"{name}={write_value(value, hint)}" for name, (value, hint) in values.items())
        return f"{self.name}:{params}" if params else self.name

    @property
    def unwritten(self) -> frozenset[str]:
        """Parameters that are neither in the notation nor in hashes: those of ``written_if_set`` at their defaults."""
        return frozenset(name for name in self.written_if_set if getattr(self, name) == getattr(type(self), name))

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
