"""One forward pass of the decoder. Its state belongs to the thread that runs it."""

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
from vistrim.engine.attention.look_ahead import ProjectedKeys, leave_layer
from vistrim.engine.attention.tensor_parallel import SharedRows
from vistrim.engine.hooks import Call
from vistrim.engine.passes.deepstack import Merge
from vistrim.engine.passes.layer_cut import LayerCuts, LayerPass
from vistrim.engine.report.recorder import Recorder
from vistrim.methods.base.method import Method


@dataclass
class Forward:
    """A forward pass without cuts, and base class of those with cuts.

    Attributes
    ----------
    spec : ModelSpec
        The model.
    method : Method
        The method.
    layer_cuts : LayerCuts
        Structural cuts of the layers.
    recorder : Recorder
        Collects the measurements.
    length : int
        Number of tokens of this pass before trimming.
    past : int
        Number of tokens of the sequence before this pass, including removed ones.
    cache : Cache or None
        The KV cache, whose layers can evict tokens.
    group : ProcessGroup or None
        The processes that share the heads of the model. None: this process has all heads.
    intercepted : int or None
        The layer whose attention is read.
    scores : Tensor or None
        ``[batch, tokens]``: attention received in the layer intercepted last.
    looks_ahead : bool
        Whether a layer is being run only up to its attention, to read its queries and keys.
    plan : LayerPass or None
        Plan of the current layer, if it has structural cuts.
    projected : ProjectedKeys or None
        Keys of the next layer, if it was looked ahead at.
    memo : dict
        Tensors shared by several layers.
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
    projected: ProjectedKeys | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def flash(self) -> bool:
        """Whether the attention kernel of the decoder is FlashAttention."""
        config: Any = self.spec.decoder.config
        return is_flash(config._attn_implementation)

    @cached_property
    def windows(self) -> tuple[int | None, ...]:
        """Sliding window of each layer in tokens. None: full attention, or the window is not full yet."""
        end = self.past + self.length
        windows = sliding_windows(self.spec.decoder.config)
        return tuple(window if window is not None and window < end else None for window in windows)

    @property
    def drops_positions(self) -> bool:
        """Whether positions must not be passed to attention kernels."""
        return False

    @property
    def rows(self) -> Tensor | None:
        """Remaining tokens of this pass, ``[batch, rows]`` long. None: all."""
        return None

    @property
    def left(self) -> tuple[Tensor | None, Sequence[Merge]]:
        """``rows``, and the merges of this pass."""
        return self.rows, ()

    def before_layer(self, layer: int, hidden: Tensor, kwargs: Call) -> tuple[Tensor, Call] | None:
        """Apply the cut before a layer.

        Parameters
        ----------
        layer : int
            The next layer to run.
        hidden : Tensor
            ``[batch, rows, hidden]``.
        kwargs : dict
            The layer's keyword arguments.

        Returns
        -------
        tuple or None
            New hidden states and the changed keyword arguments. None: no change.
        """
        self.recorder.layer_ran(self.length, self.cached(layer), None)
        return None

    def plan_layer(self, layer: int) -> LayerPass | None:
        """Plan the structural cuts of a layer, once its tokens are known."""
        return None

    def intercept(self, layer: int) -> Interception | None:
        """Return the interception of the attention of the current layer."""
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
        """Extend query rows with the heads of this process to all heads of the layer."""
        return rows if self.group is None else SharedRows(**vars(rows), group=self.group)

    def looking(self, layer: int, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries and keys of the heads that see visual tokens."""
        cut = self.layer_cuts[layer]
        return (query, key) if cut is None else cut.looking(query, key)

    def read_scores(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Score the tokens by the attention of a layer; see `vistrim.engine.attention.interception.AttentionReader`."""

    def restored(self, hidden: Tensor) -> Tensor:
        """Restore the length of the last hidden states ``[batch, rows, hidden]`` that the model expects."""
        return hidden

    def cached(self, layer: int) -> int:
        """Return the number of columns in the cache of a layer."""
        return self.cache.layers[layer].stored if self.cache is not None else 0

    def remember(self, key: Any, alive: Any, make: Callable[[], Any]) -> Any:
        """Create a tensor once for all layers that share it. ``alive`` is kept, because ``key`` has ids of it."""
        if key not in self.memo:
            self.memo[key] = alive, make()
        return self.memo[key][1]
