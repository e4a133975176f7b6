"""Total attention that each prompt token receives while a model generates, accumulated on the fly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures import ModelSpec
from vistrim.core.query_text import text_behind_images
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.core.selection import gather_rows
from vistrim.engine.attention import interception
from vistrim.engine.hooks import Call, Hooks, before
from vistrim.engine.inputs.encodings import Encodings, watch_encoder
from vistrim.engine.inputs.prompt import Prompt, read_inputs, read_prompt
from vistrim.engine.inputs.prompt_ends import Border
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.tokens.masks import visible_to_rows


class AttentionCollector:
    """Accumulates the attention that each prompt token receives in one generation without beams, in this thread.

    The query rows are, in prefill, the text after the sample's last visual token (or its last prompt token if there is
    no such text) and then each generated token. Padding and tokens after the end-of-sequence token do not count.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    ends : Tensor
        ``[n]`` long: the end-of-sequence tokens.

    Attributes
    ----------
    prompt : Prompt
        The prompt.
    encodings : Encodings
        Layout of the visual tokens of its images.
    encoded : dict or None
        The encoded images, in the form that transformers passes to the model.
    received : Tensor
        ``[batch, prompt tokens]`` float32: attention summed over layers, heads and query rows.
    going : Tensor
        ``[batch]`` bool, True while the answer has not ended.
    lengths : Tensor
        ``[batch]`` long: tokens of the answer, including the end-of-sequence token.
    """

    prompt: Prompt
    encoded: dict[str, Any] | None
    received: Tensor
    going: Tensor
    lengths: Tensor

    def __init__(self, spec: ModelSpec, ends: Tensor) -> None:
        self.spec, self.ends = spec, ends
        self._thread = threading.get_ident()
        self.encodings = Encodings()
        self._passes = self._seen = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Install hooks in the model, and remove them in any case."""
        hooks = Hooks()
        with ExitStack() as undo:
            undo.callback(hooks.remove)
            watch_encoder(self.spec, self._notes, hooks)
            undo.callback(before(self.spec.base, self._begin_forward).remove)
            for attention in self.spec.attentions:
                interception.install(attention, self._intercept)
                undo.callback(interception.remove, attention)
            yield

    def note_token(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Track the end of each sample, as a stopping criterion that never stops."""
        self.lengths += self.going
        self.going = self.going & ~torch.isin(ids[:, -1], self.ends)
        return torch.zeros_like(self.going)

    def _begin_forward(self, call: Call) -> None:
        if threading.get_ident() != self._thread:
            return
        ids: Tensor = call["input_ids"]
        batch, length = ids.shape
        self._passes, self._seen = self._passes + 1, self._seen + length
        if self._passes > 1:
            return
        inputs = read_inputs(self.spec, call, Border(prompts_only=True)).with_shapes(self.encodings.shapes)
        self.prompt = read_prompt(inputs, batch, 0, length, ids.device)
        self.encoded = call.get("mm_encoder_outputs")
        tokens = self.prompt.tokens
        self._asking = QueryRows.of(text_behind_images(tokens.visual, tokens.valid), tokens, self.prompt)
        self.received = torch.zeros(batch, length, device=ids.device)
        self.going = torch.ones(batch, dtype=torch.bool, device=ids.device)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=ids.device)

    def _notes(self) -> Encodings | None:
        return self.encodings if threading.get_ident() == self._thread else None

    def _intercept(self) -> interception.Interception | None:
        # Other threads may use the model at the same time.
        return (
            interception.Interception(self._read, drops_positions=True)
            if threading.get_ident() == self._thread
            else None
        )

    def _read(self, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        length, columns = query.shape[2], key.shape[2]
        if self._passes == 1:
            rows, counted = self._asking.among(self.prompt.tokens), self._asking.counted
            query = gather_rows(query, rows, 0, 2)
        else:
            rows, counted = torch.zeros_like(self.lengths)[:, None], self.going[:, None]
        rows = rows.to(query.device)
        counted = counted.to(query.device) if counted is not None else None
        seen = visible_to_rows(mask, rows, length, columns)
        total = AttentionRows(query, key, seen, softmax, columns, rows, counted).total().to(self.received.device)
        # A sliding window has evicted the first tokens. The last columns are generated tokens.
        first, width = self._seen - columns, self.received.shape[1]
        if first < width:
            self.received[:, first:] += total[:, : width - first]
