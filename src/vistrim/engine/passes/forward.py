"""One forward pass of the decoder. Its state lives in the thread that runs it, and ends with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.architectures import ModelSpec
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.engine.attention.flash import is_flash, sliding_windows
from vistrim.engine.attention.interception import Interception
from vistrim.engine.attention.look_ahead import leave_layer
from vistrim.engine.attention.tensor_parallel import SharedRows
from vistrim.engine.hooks import Call
from vistrim.engine.passes.deepstack import Merge
from vistrim.engine.passes.layer_cut import LayerCuts, LayerPass
from vistrim.engine.report.recorder import Recorder
from vistrim.methods.base.method import Method


@dataclass
class Forward:
    """A forward pass that removes nothing; base class of those that do.

    Attributes
    ----------
    spec : ModelSpec
        The model.
    method : Method
        What is trimmed.
    layer_cuts : LayerCuts
        What the layers leave out for visual tokens.
    recorder : Recorder
        Collects the measurements.
    length : int
        Tokens of this pass before trimming.
    past : int
        Tokens of the sequence before this pass, the removed ones included.
    cache : Cache or None
        Its layers are trimmable.
    group : ProcessGroup or None
        The processes that share the heads of the model; None: this one has all.
    intercepted : int or None
        The layer whose attention is to be read.
    scores : Tensor or None
        ``[batch, tokens]``: attention received at the layer that was intercepted last.
    looks_ahead : bool
        Whether a layer is being run up to its attention only, to see its queries and keys.
    plan : LayerPass or None
        What the layer that is running does otherwise.
    memo : dict
        Tensors that several layers share.
    """

    spec: ModelSpec
    method: Method
    layer_cuts: LayerCuts
    recorder: Recorder
    length: int
    past: int
    cache: Cache | None
    group: Any
    intercepted: int | None = None
    scores: Tensor | None = None
    looks_ahead: bool = False
    plan: LayerPass | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def flash(self) -> bool:
        """Whether the decoder's attention kernel is a FlashAttention."""
        config: Any = self.spec.decoder.config
        return is_flash(config._attn_implementation)

    @cached_property
    def windows(self) -> tuple[int | None, ...]:
        """Tokens that each layer looks back over; None: all, or no window has been filled yet."""
        end = self.past + self.length
        windows = sliding_windows(self.spec.decoder.config)
        return tuple(window if window is not None and window < end else None for window in windows)

    @property
    def drops_positions(self) -> bool:
        """Whether attention kernels must not be told positions."""
        return False

    @property
    def rows(self) -> Tensor | None:
        """Which tokens of this pass are left, ``[batch, rows]`` long; None: all of them."""
        return None

    @property
    def left(self) -> tuple[Tensor | None, Sequence[Merge]]:
        """``rows``, and the cuts of this pass at which tokens were merged."""
        return self.rows, ()

    def before_layer(self, layer: int, hidden: Tensor, kwargs: Call) -> tuple[Tensor, Call] | None:
        """Remove what is to be removed before a layer.

        Parameters
        ----------
        layer : int
            The layer that is about to run.
        hidden : Tensor
            ``[batch, rows, hidden]``.
        kwargs : dict
            The layer's keyword arguments.

        Returns
        -------
        tuple or None
            New hidden states and the keyword arguments that change; None leaves the layer alone.
        """
        self.recorder.layer_ran(self.length, self.cached(layer), None)
        return None

    def plan_layer(self, layer: int) -> LayerPass | None:
        """Plan what a layer leaves out, once it is certain which tokens it has."""
        return None

    def intercept(self, layer: int) -> Interception | None:
        """What is done at the attention of a layer that is running."""
        if self.looks_ahead:
            return Interception(read_before=leave_layer)
        kernel = self.plan.kernel if self.plan is not None else None
        if self.intercepted != layer:
            intercepted = kernel is not None or self.drops_positions
            return Interception(kernel=kernel, drops_positions=self.drops_positions) if intercepted else None

        def read(query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
            self.read_scores(layer, *self.looking(layer, query, key), mask, softmax)

        return Interception(read, kernel, drops_positions=True)

    def of_all_heads(self, rows: AttentionRows) -> AttentionRows:
        """Query rows of a layer with all of its heads, from those of the heads that this process has."""
        return rows if self.group is None else SharedRows(**vars(rows), group=self.group)

    def looking(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of the layer's heads that see visual tokens."""
        cut = self.layer_cuts[layer]
        return (query, key) if cut is None else cut.looking(query, key)

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Score the tokens by the attention of a layer; see `vistrim.engine.attention.interception.AttentionReader`."""

    def restored(self, hidden: Tensor) -> Tensor:
        """Last hidden states ``[batch, rows, hidden]`` at the length that the model expects."""
        return hidden

    def cached(self, layer: int) -> int:
        """Columns that the layer's cache holds."""
        return self.cache.layers[layer].stored if self.cache is not None else 0

    def remember(self, key: Any, alive: Any, make: Callable[[], Any]) -> Any:
        """Make a tensor once for all layers that share it; ``alive`` is held, as ``key`` has addresses of its parts."""
        if key not in self.memo:
            self.memo[key] = alive, make()
        return self.memo[key][1]
