"""Methods composed of others that act at different stages."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vistrim.core.layout import Grid
from vistrim.core.model_facts import ModelFacts
from vistrim.core.scores import AttentionRows
from vistrim.core.selection import Selection
from vistrim.core.structure import LayerStructure
from vistrim.methods.base.guidance import Guidance
from vistrim.methods.base.method import DecodeRows, Method, Ranking
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.base.stage_hooks import STAGES
from vistrim.methods.base.stage_inputs import InputTokens, LayerTokens

KEEP_EVERYTHING = Method()


@dataclass(frozen=True)
class Composition(Method):
    """Base class of compositions. Each stage is handled by the part that acts at it.

    Shares at a stage refer to the tokens that the stage before has left. After a selector that lets half of the tokens
    in, a schedule inside the decoder starts from that half.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[Method, ...]:
        """The composed methods."""

    @property
    def acts_in_decode(self) -> bool:
        """Whether any part trims the KV cache during decode."""
        return any(part.acts_in_decode for part in self.parts)

    @property
    def renumbers(self) -> bool:
        """Whether any part gives the remaining tokens consecutive RoPE positions."""
        return any(part.renumbers for part in self.parts)

    @property
    def ranks_by(self) -> Ranking:  # type: ignore[override]
        """`Method.ranks_by` of the part at the prefill stage."""
        return self.part("prefill").ranks_by

    @property
    def counts_images(self) -> bool:  # type: ignore[override]
        """`Method.counts_images` of the part at the prefill stage."""
        return self.part("prefill").counts_images

    @property
    def averages_layers(self) -> bool:  # type: ignore[override]
        """`Method.averages_layers` of the part at the prefill stage."""
        return self.part("prefill").averages_layers

    @property
    def evicts_by(self) -> DecodeRows:  # type: ignore[override]
        """`Method.evicts_by` of the part at the decode stage."""
        return self.part("decode").evicts_by

    @property
    def remark(self) -> str:
        """Remarks of all parts, separated by semicolons."""
        return "; ".join(part.remark for part in self.parts if part.remark)

    @property
    def guidance(self) -> Guidance | None:
        """`Method.guidance` of the part at the prefill stage."""
        return self.part("prefill").guidance

    @property
    def reads_question(self) -> bool:  # type: ignore[override]
        """`Method.reads_question` of the part at the input stage."""
        return self.part("input").reads_question

    @property
    def reads_words(self) -> bool:  # type: ignore[override]
        """`Method.reads_words` of the part at the input stage."""
        return self.part("input").reads_words

    @property
    def shrinks_images(self) -> bool:  # type: ignore[override]
        """`Method.shrinks_images` of the part at the input stage."""
        return self.part("input").shrinks_images

    @property
    def shrunk_grid(self) -> Grid | None:
        """`Method.shrunk_grid` of the part at the input stage."""
        return self.part("input").shrunk_grid

    @property
    def reads_features(self) -> bool:  # type: ignore[override]
        """`Method.reads_features` of the part at the prefill stage."""
        return self.part("prefill").reads_features

    @property
    def reads_class_token(self) -> bool:  # type: ignore[override]
        """`Method.reads_class_token` of the part at the input stage."""
        return self.part("input").reads_class_token

    @property
    def caution(self) -> str:  # type: ignore[override]
        """Warnings of all parts, separated by semicolons."""
        return "; ".join(part.caution for part in self.parts if part.caution)

    @property
    def reads_prompt(self) -> bool:  # type: ignore[override]
        """`Method.reads_prompt` of the part at the prefill stage."""
        return self.part("prefill").reads_prompt

    @property
    def reads_vision(self) -> bool:  # type: ignore[override]
        """`Method.reads_vision` of the part at the input stage."""
        return self.part("input").reads_vision

    @property
    def needs_grid(self) -> bool:  # type: ignore[override]
        """`Method.needs_grid` of the part at the input stage."""
        return self.part("input").needs_grid

    def fitted(self, model: ModelFacts) -> "Composed":
        """Fit every part to a model."""
        return Composed(tuple(part.fitted(model) for part in self.parts))

    def own_flops(self, model: ModelFacts, visual_per_layer: Sequence[int]) -> int:
        """Count the FLOPs of the networks that belong to the parts."""
        return sum(part.own_flops(model, visual_per_layer) for part in self.parts)

    def structure(self, model: ModelFacts) -> tuple[LayerStructure, ...] | None:
        """Call `structure` of the part at the structure stage."""
        return self.part("structure").structure(model)

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        """Call `vision_blocks` of the part at the input stage."""
        return self.part("input").vision_blocks(feature_block)

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        """Call `vision_states` of the part at the input stage."""
        return self.part("input").vision_states(feature_block)

    def vision_keys(self, feature_block: int) -> tuple[int, ...]:
        """Call `vision_keys` of the part at the input stage."""
        return self.part("input").vision_keys(feature_block)

    def select_input(self, tokens: InputTokens) -> Selection | None:
        """Call `select_input` of the part at the input stage."""
        return self.part("input").select_input(tokens)

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Call `prefill_layers` of the part at the prefill stage."""
        return self.part("prefill").prefill_layers(depth)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Call `query_rows` of the part at the prefill stage."""
        return self.part("prefill").query_rows(embeddings, visual, prompt)

    def score(self, attention: AttentionRows, visual: Tensor) -> Tensor:
        """Call `score` of the part at the prefill stage."""
        return self.part("prefill").score(attention, visual)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Call `prefill_count` of the part at the prefill stage."""
        return self.part("prefill").prefill_count(layer, initial, held, images, depth)

    def input_count(self, sample: SampleSizes) -> int:
        """Call `input_count` of the part at the input stage."""
        return self.part("input").input_count(sample)

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection | None:
        """Call `select_prefill` of the part at the prefill stage."""
        return self.part("prefill").select_prefill(layer, tokens)

    def decode_counts(
        self, layer: int, step: int, initial: Sequence[int], left: Sequence[int], depth: int
    ) -> tuple[int, ...] | None:
        """Call `decode_counts` of the part at the decode stage."""
        part = self.part("decode")
        return part.decode_counts(layer, step, initial if part is self.part("prefill") else left, left, depth)

    def select_decode(self, layer: int, counts: Sequence[int], tokens: LayerTokens) -> Selection:
        """Call `select_decode` of the part at the decode stage."""
        return self.part("decode").select_decode(layer, counts, tokens)

    def part(self, stage: str) -> Method:
        """Return the part that acts at a stage.

        Parameters
        ----------
        stage : str
            One of ``STAGES``.

        Returns
        -------
        Method
            The part, or a method that keeps everything if no part acts at the stage.
        """
        return next((part for part in self.parts if stage in part.acting_stages), KEEP_EVERYTHING)


def methods_in(method: Method) -> tuple[Method, ...]:
    """List the methods in a composition.

    Parameters
    ----------
    method : Method
        The method.

    Returns
    -------
    tuple of Method
        The parts, or the method itself.
    """
    return method.parts if isinstance(method, Composition) else (method,)


def part_at(method: Method, stage: str) -> Method:
    """Return the part of a composition that acts at a stage.

    Parameters
    ----------
    method : Method
        The method.
    stage : str
        One of ``STAGES``.

    Returns
    -------
    Method
        The part, or the method itself if it is no composition.
    """
    return method.part(stage) if isinstance(method, Composition) else method


@dataclass(frozen=True)
class Composed(Composition):
    """A composition made by `vistrim.compose`.

    Parameters
    ----------
    methods : tuple of Method
        The composed methods. No two act at the same stage: see `of`.
    """

    name = "compose"
    summary = "Runs methods that act in different stages together"

    methods: tuple[Method, ...]

    @classmethod
    def of(cls, methods: Iterable[Method]) -> "Composed":
        """Compose methods.

        Compositions among them are replaced by their parts.

        Parameters
        ----------
        methods : iterable of Method
            At least two methods.

        Returns
        -------
        Composed
            The composition.

        Raises
        ------
        ValueError
            If two of them act at the same stage, or there are fewer than two.
        """
        parts = tuple(part for method in methods for part in (method.methods if isinstance(method, cls) else (method,)))
        if len(parts) < 2:
            raise ValueError("compose takes at least two methods: use a single one as it is")
        acts: dict[str, Method] = {}
        for part in parts:
            for stage in part.acting_stages:
                if stage in acts:
                    raise ValueError(
                        f"{acts[stage].name} and {part.name} both act in the {stage} stage: "
                        "compose methods that act in different ones (`vistrim methods` lists them)"
                    )
                acts[stage] = part
        return cls(parts)

    @property
    def budget_parameter(self) -> str:  # type: ignore[override]
        """`Method.budget_parameter` of the first part."""
        return self.methods[0].budget_parameter

    @property
    def unbudgeted(self) -> str:  # type: ignore[override]
        """`Method.unbudgeted` of the first part."""
        return self.methods[0].unbudgeted

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Return the composition with the `budget_parameter` of the first part set."""
        return Composed((self.methods[0].with_share(share, model), *self.methods[1:]))

    def __str__(self) -> str:
        """Return the methods in the notation, such as ``fastervlm:keep=0.5+vta:horizon=64``."""
        return "+".join(map(str, self.methods))

    def to_dict(self) -> dict[str, str]:
        """Return the composition as plain data."""
        return {"method": "+".join(method.to_dict()["method"] for method in self.methods)}

    @property
    def parts(self) -> tuple[Method, ...]:
        """The composed methods."""
        return self.methods

    @property
    def needs(self) -> str:  # type: ignore[override]
        """Requirements of the parts, separated by semicolons."""
        return "; ".join(part.needs for part in self.methods)

    @property
    def kv_cache(self) -> str:  # type: ignore[override]
        """Effects of the parts on the KV cache, separated by semicolons."""
        return "; ".join(part.kv_cache for part in self.methods)

    @property
    def source(self) -> str:  # type: ignore[override]
        """Origins of the parts, separated by semicolons."""
        return "; ".join(part.source for part in self.methods)

    @property
    def stages(self) -> tuple[str, ...]:  # type: ignore[override]
        """Stages at which any part acts."""
        return tuple(stage for stage in STAGES if any(stage in part.acting_stages for part in self.methods))
