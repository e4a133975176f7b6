"""Hooks on a model: they follow each forward pass from the prompt to the logits and let the method cut on the way."""

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from vistrim.architectures import ModelSpec, discover
from vistrim.engine import decode, prefill, prompt, tap
from vistrim.engine.cache import make_trimmable
from vistrim.engine.compaction import restore_length
from vistrim.engine.forward import Forward
from vistrim.engine.generation import Generation, check_generation, check_kernel
from vistrim.engine.recorder import Recorder
from vistrim.engine.tokens import TokenMap
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError
from vistrim.methods.base import Method


class _ThreadState(threading.local):
    """What one thread is doing with the model right now."""

    generation: Generation | None = None
    call: prompt.Call | None = None
    inputs: prompt.PromptInputs | None = None
    forward: Forward | None = None


class Engine:
    """Runs one method on one model between `attach` and `detach`.

    Parameters
    ----------
    model : PreTrainedModel
        A multimodal model for generation.
    method : Method
        What to trim.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed.
    ValueError
        If the method's parameters do not fit the model.
    """

    def __init__(self, model: PreTrainedModel, method: Method) -> None:
        self.model = model
        self.method = method
        self.spec: ModelSpec = discover(model)
        depth = self.spec.decoder_shape.layers
        method.check(depth)
        self.cuts = frozenset(method.prefill_layers(depth))
        self.recorders: list[Recorder] = []
        self._by_cache: weakref.WeakKeyDictionary[Cache, Recorder] = weakref.WeakKeyDictionary()
        self._thread = _ThreadState()
        self._undo: list[Callable[[], None]] = []

    def attach(self) -> None:
        """Install the hooks.

        Raises
        ------
        UnsupportedModelError
            If the model is already being trimmed.
        """
        if tap.is_installed(self.spec.attentions[0]):
            raise UnsupportedModelError(
                "this model is already being trimmed: leave that context (or detach that handle) first"
            )
        self._before(self.model, self._note_call)
        self._before(self.spec.base, self._note_prompt)
        self._before(self.spec.decoder, self._begin_forward)
        self._undo.append(
            self.spec.decoder.register_forward_hook(self._end_forward, with_kwargs=True, always_call=True).remove
        )
        for i, layer in enumerate(self.spec.layers):
            self._before(layer, functools.partial(self._before_layer, i))
        for i, attention in enumerate(self.spec.attentions):
            tap.install(attention, functools.partial(self._reader, i))
            self._undo.append(functools.partial(tap.remove, attention))
        self._replace("generate", self._guarded(self.model.generate))
        for name in ("generate_batch", "init_continuous_batching"):
            self._replace(name, _refuse_continuous_batching)

    def detach(self) -> None:
        """Remove everything that `attach` installed."""
        while self._undo:
            self._undo.pop()()

    def _before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        handle: RemovableHandle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._undo.append(handle.remove)

    def _replace(self, name: str, function: Callable[..., Any]) -> None:
        """Shadow a method of the model on the instance."""
        own = vars(self.model)
        if name in own:
            self._undo.append(functools.partial(own.__setitem__, name, own[name]))
        else:
            self._undo.append(functools.partial(own.__delitem__, name))
        own[name] = function

    def _guarded(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            check_generation(self.model, self.method.acts_in_decode, kwargs)
            generation = self._thread.generation = Generation()
            try:
                output = generate(*args, **kwargs)
            finally:
                self._thread.generation = None
            if generation.recorder is not None:
                prompt_ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
                sequences = output if isinstance(output, Tensor) else output.sequences
                given = 0 if prompt_ids is None else prompt_ids.shape[1]
                generation.recorder.end_generation(sequences.shape[1] - given)
            return output

        return guarded

    def _note_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._thread.call = prompt.Call(kwargs.get("labels"), kwargs.get("logits_to_keep"))

    def _note_prompt(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_kernel(self.spec.decoder.config)
        call, self._thread.call = self._thread.call, None
        if args:
            kwargs = {"input_ids": args[0]} | kwargs
        self._thread.inputs = prompt.read(self.spec, call or prompt.Call(), kwargs)

    def _begin_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        config: Any = module.config
        inputs, self._thread.inputs = self._thread.inputs, None
        embeddings = kwargs["inputs_embeds"]
        batch, length = embeddings.shape[:2]
        cache = kwargs.get("past_key_values")
        use_cache = kwargs["use_cache"] if kwargs.get("use_cache") is not None else config.use_cache
        if cache is None and use_cache:
            cache = DynamicCache(config=config)
            kwargs = kwargs | {"past_key_values": cache}
        if cache is not None:
            make_trimmable(cache, len(self.spec.layers))
        past = cache.get_seq_length() if cache is not None else 0
        recorder, is_new = self._recorder(embeddings, cache)
        forward = self._thread.forward = Forward(length, past, cache, recorder)
        if is_new or length > 1 or cache is None:
            self._begin_prefill(forward, batch, inputs, embeddings.device)
        elif self.method.acts_in_decode:
            decode.plan(self.spec, self.method, forward)
        if is_new:
            recorder.begin_prefill(batch, length, past, forward.tokens, len(forward.image_sizes))
        return args, kwargs

    def _begin_prefill(
        self, forward: Forward, batch: int, inputs: prompt.PromptInputs | None, device: torch.device
    ) -> None:
        generation = self._thread.generation
        layers = forward.cache.layers if forward.cache is not None else []
        for cached in layers:
            cached.prompt_length = forward.past + forward.length
        if inputs is None or (inputs.visual is None and not any(cached.tokens for cached in layers)):
            return
        tokens = forward.tokens = inputs.tokens(batch, forward.past, forward.length, device)
        forward.initial = tokens.n_visual
        forward.image_sizes = inputs.image_sizes
        ranking = inputs.ranking(tokens)
        if generation is not None and forward.cache is None:
            # Without a cache, the later passes repeat the prefill and have to choose as it did.
            if generation.ranking is None:
                generation.ranking = ranking
            ranking = generation.ranking
        forward.ranking = ranking

    def _recorder(self, embeddings: Tensor, cache: Cache | None) -> tuple[Recorder, bool]:
        """Return the recorder of the generation that this forward pass belongs to, and whether it has just begun."""
        generation = self._thread.generation
        if generation is not None:
            found = generation.recorder
        else:
            found = self._by_cache.get(cache) if cache is not None and embeddings.shape[1] == 1 else None
        if found is not None:
            return found, False
        recorder = Recorder(self.spec, str(self.method), embeddings.device)
        self.recorders.append(recorder)
        if generation is not None:
            generation.recorder = recorder
        if cache is not None:
            self._by_cache[cache] = recorder
        return recorder, True

    def _before_layer(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        forward = self._thread.forward
        if forward is None:
            return None
        if forward.tokens is not None:
            kwargs = dict(kwargs)
            cuts = self.cuts if any(forward.initial) else frozenset()
            hidden = prefill.before_layer(self.spec, self.method, cuts, forward, i, args[0], kwargs)
            return (hidden, *args[1:]), kwargs
        if forward.recorder.in_prefill:
            held = forward.cache.layers[i].stored if forward.cache is not None else 0
            forward.recorder.layer_ran(forward.length, held, None)
        elif forward.cache is not None and (forward.targets or forward.cache.layers[i].is_trimmed):
            kwargs = dict(kwargs)
            decode.before_layer(self.spec, self.method, forward, i, kwargs)
            return args, kwargs
        return None

    def _reader(self, i: int) -> tap.TapReader | None:
        forward = self._thread.forward
        if forward is None or forward.tapped != i:
            return None
        read = prefill.read_scores if forward.tokens is not None else decode.read_scores
        return functools.partial(read, forward, i)

    def _end_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        forward, self._thread.forward = self._thread.forward, None
        if forward is None or output is None:
            return output
        forward.recorder.end_forward(forward.cache)
        if forward.trimmed and forward.tokens is not None:
            rows: TokenMap = forward.tokens
            output.last_hidden_state = restore_length(
                output.last_hidden_state, rows.slots - forward.past, rows.valid, forward.length
            )
        return output


def _refuse_continuous_batching(*args: Any, **kwargs: Any) -> None:
    raise UnsupportedGenerationError(
        "vistrim does not support continuous batching, whose paged cache it cannot trim: use model.generate()"
    )
