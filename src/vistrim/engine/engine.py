"""Hooks that follow each forward pass of a model from the prompt to the logits and apply the cuts of a method."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from vistrim.architectures import ModelSpec, discover
from vistrim.architectures.spec import VisionTower
from vistrim.engine.attention import interception
from vistrim.engine.attention.flash import refuse_packed_images
from vistrim.engine.attention.look_ahead import reuse_keys
from vistrim.engine.attention.tensor_parallel import check_shared, find_group
from vistrim.engine.cache.swap import check_lacking, make_trimmable
from vistrim.engine.generation import (
    GenerateCall,
    Generation,
    begin_generation,
    check_kernel,
    check_layer_cuts,
    check_length,
    check_router_logits,
    refuse_continuous_batching,
)
from vistrim.engine.hooks import Call, Hooks, NotCopied
from vistrim.engine.inputs.encodings import Encodings, awaited, encode_first, watch_encoder
from vistrim.engine.inputs.prompt import Prompt, has_images, read_inputs, read_prompt
from vistrim.engine.inputs.prompt_ends import Border
from vistrim.engine.inputs.question import read_question
from vistrim.engine.inputs.tower import TowerRecord, check_features, watch
from vistrim.engine.passes.decode import Decode
from vistrim.engine.passes.deepstack import Merge, watch_features_of_layers
from vistrim.engine.passes.forward import Forward
from vistrim.engine.passes.layer_cut import RowSplit
from vistrim.engine.passes.method_answers import check_cuts, check_description, check_fitted
from vistrim.engine.passes.prefill import Prefill
from vistrim.engine.releases import CACHE, check_runs, recomputes_layers, with_cache_renamed
from vistrim.engine.report.recorder import Recorder
from vistrim.engine.report.tracer import Tracer
from vistrim.engine.requirements import check_grid, check_norm, check_positions, layer_cuts, shrinking, vision_reads
from vistrim.engine.running import RunningCalls, RunningRecorders, ThreadState
from vistrim.engine.wrappers import check_eager, without_adapter
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.method import Method

GENERATE = "generate"


class Engine(NotCopied):
    """Runs one method on one model between `attach` and `detach`.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, or an adapter around one.
    method : Method
        The method.
    reports : int or None
        Number of recorders to keep, for the last calls. None: all.
    trace : bool
        Whether reports have a trace.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed.
    ValueError
        If the method's parameters do not fit the model.
    MethodError
        If the method does not follow the interface of `Method`.
    """

    def __init__(self, model: nn.Module, method: Method, reports: int | None = None, trace: bool = False) -> None:
        self.model = model = without_adapter(model)
        check_description(method)
        self.spec: ModelSpec = discover(model)
        check_runs(self.spec.model_type)
        fitted = method.fitted(self.spec.facts)
        check_fitted(fitted, method)
        self.notation = f"{method} ({fitted.remark})" if fitted.remark else str(method)
        self.method = method = fitted
        depth = self.spec.decoder_shape.layers
        self.cuts = check_cuts(method.prefill_layers(depth), method, depth)
        self.vision_reads = vision_reads(method, self.spec)
        check_grid(method, self.spec)
        check_norm(method, self.spec)
        self.shrinking = shrinking(method, self.spec)
        check_positions(method, self.spec)
        self.layer_cuts = layer_cuts(method, self.spec)
        self.group = find_group(model)
        if self.group is not None:
            check_shared(method, self.spec)
        self.recorders: deque[Recorder] = deque(maxlen=reports)
        self.seen = 0
        self._trace = trace
        self._records = RunningRecorders(self._recorder)
        self._thread = ThreadState()
        self._hooks = Hooks()
        self._running = RunningCalls(self._hooks.remove)

    def attach(self) -> None:
        """Install the hooks.

        Raises
        ------
        UnsupportedModelError
            If the model is already being trimmed, or a generation that began in an earlier context is still running.
        """
        if interception.is_installed(self.spec.attentions[0]):
            raise UnsupportedModelError(
                "this model is already being trimmed: leave that context (or detach that handle) first, and let "
                "generations that began in it end"
            )
        hooks = self._hooks
        hooks.around(self.model, self._note_head_call, self._forget_head_call)
        hooks.around(self.spec.base, self._note_inputs, self._forget_inputs)
        hooks.around(self.spec.decoder, self._begin_forward, self._end_forward)
        watch_features_of_layers(self.spec.decoder, self._left_of_pass, hooks)
        for i, layer in enumerate(self.spec.layers):
            hook = functools.partial(self._before_layer, i)
            hooks.keep(layer.register_forward_pre_hook(hook, with_kwargs=True))
        for i, attention in enumerate(self.spec.attentions):
            interception.install(attention, functools.partial(self._intercept, i))
            hooks.undo_with(functools.partial(interception.remove, attention))
        for layer, cut in zip(self.spec.layers, self.layer_cuts, strict=True):
            if cut is not None:
                cut.narrow(layer, self.spec.decoder_shape, hooks, self._split_rows)
        if self.method.ranks_by == "layer ahead" and self.group is None:
            for i in (i for i in self.cuts if self.layer_cuts[i] is None):
                reuse_keys(i, self.spec.layers[i], hooks, self._thread.find_projected)
        watch_encoder(self.spec, self._thread.find_encodings, hooks)
        if self.method.reads_vision:
            watch(self.tower, self.vision_reads, self._thread.find_vision, hooks)
        hooks.shadow(self.model, "generate", self._generate(self.model.generate))
        for name in ("generate_batch", "init_continuous_batching"):
            hooks.shadow(self.model, name, refuse_continuous_batching)
        self._running.open()

    @property
    def is_attached(self) -> bool:
        """Whether calls that begin now are trimmed."""
        return self._running.is_open

    def remember(self, recorder: Recorder) -> None:
        """Store the recorder of a generation or bare forward pass, and count it."""
        self.recorders.append(recorder)
        self.seen += 1

    @property
    def tower(self) -> VisionTower:
        """The vision tower, for a method that reads it."""
        assert self.spec.images.tower is not None
        return self.spec.images.tower

    def _recorder(self, device: torch.device) -> Recorder:
        tracer = Tracer(self.spec.decoder_shape.layers, self.spec.images.parts_unknown) if self._trace else None
        return Recorder(self.spec, self.method, self.notation, device, tracer)

    def _encodings(self) -> Encodings:
        vision = TowerRecord(self.tower, self.vision_reads) if self.method.reads_vision else None
        return Encodings(vision=vision, shrinking=self.shrinking)

    def detach(self) -> None:
        """Stop trimming new calls. The hooks are removed now, or when the last running call ends."""
        if self._thread.inside is not None and self._thread.inside != GENERATE:
            # A forward pass of this thread that was interrupted from the keyboard.
            self._leave(self._thread.inside)
        self._running.close()

    @contextmanager
    def answer_from(self, first: int | Sequence[int] | Tensor) -> Iterator[None]:
        """See `vistrim.trimming.Trim.answer_from`."""
        outer, places = self._thread.answer_from, torch.as_tensor(first).reshape(-1)
        if places.is_floating_point() or places.dtype == torch.bool:
            raise TypeError(
                "answer_from takes integer positions: for a mask of answer tokens, pass mask.int().argmax(1)"
            )
        self._thread.answer_from = places
        try:
            yield
        finally:
            self._thread.answer_from = outer

    def _enter(self, call: str) -> bool:
        """Begin a call. Returns whether this thread is being trimmed."""
        if self._thread.inside is None and self._running.admit():
            self._thread.inside = call
        return self._thread.inside is not None

    def _leave(self, call: str) -> None:
        """End a call. Only the outermost call counts."""
        if self._thread.inside == call:
            self._thread.inside = None
            self._running.leave()

    def _generate(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def checked(*args: Any, **kwargs: Any) -> Any:
            outermost = self._thread.inside is None
            if not self._enter(GENERATE):
                return generate(*args, **kwargs)
            try:
                check_eager(self.model, self.spec)
                kwargs = with_cache_renamed(kwargs)
                call = GenerateCall.of(self.model, generate, args, kwargs)
                generation = begin_generation(call, self.method.acts_in_decode, self.spec.longest)
                return self._run(call, generation, functools.partial(generate, *args, **kwargs))
            finally:
                if outermost:
                    self._leave(GENERATE)

        return checked

    def _run(self, call: GenerateCall, generation: Generation, generate: functools.partial[Any]) -> Any:
        """Run a call of ``generate`` after its checks."""
        if self.method.reads_vision:
            check_features(self.tower, call.arguments, self.method.name)
        generation.encodings = self._encodings()
        outer = dict(vars(self._thread))
        self._thread.generation = generation
        try:
            output = generate()
        finally:
            # A keyboard interrupt in a forward pass skips the hooks that clean up.
            vars(self._thread).clear()
            vars(self._thread).update(outer)
        generation.end(output)
        return output

    def _note_head_call(self, call: Call) -> None:
        if not self._enter("model"):
            return
        if self._thread.generation is None:
            # A call of `generate` has been checked already.
            check_eager(self.model, self.spec)
        check_router_logits(call, self.spec.decoder.config)
        self._thread.head_call = call

    def _forget_head_call(self, output: Any) -> None:
        self._thread.head_call = None
        self._leave("model")

    def _note_inputs(self, call: Call) -> None:
        if not self._enter("base"):
            return
        if self._thread.head_call is None and self._thread.generation is None:
            # Called without the head, whose hook checks otherwise.
            check_eager(self.model, self.spec)
        check_kernel(self.spec.decoder.config)
        if has_images(call):
            refuse_packed_images(self.spec.decoder.config, call)
        head, generation = self._thread.head_call or {}, self._thread.generation
        if generation is None:
            self._thread.inputs = read_inputs(self.spec, call, Border.of(head, self._thread.answer_from))
        else:
            border = Border.in_generate(head, generation.drafts)
            self._thread.inputs = read_inputs(self.spec, call, border, generation.ids)
        if self.method.reads_vision:
            check_features(self.tower, call, self.method.name)
        # `generate` usually encodes the images first. Any other pass encodes them itself.
        encodes = generation is None or call.get("mm_encoder_outputs") is None
        self._thread.encodings = self._encodings() if encodes else None
        if (notes := self._thread.find_encodings()) is not None:
            notes.awaited = awaited(self.spec, call)
        encode_first(self.spec, call)

    def _forget_inputs(self, output: Any) -> None:
        self._thread.inputs = self._thread.encodings = None
        self._leave("base")

    def _begin_forward(self, call: Call) -> None:
        if not self._enter("decoder"):
            return
        embeddings = call["inputs_embeds"] if call.get("inputs_embeds") is not None else call["input_ids"]
        batch, length = embeddings.shape[:2]
        cache = call[CACHE] = self._cache(call)
        past = cache.get_seq_length() if cache is not None else 0
        check_length(past + length, self.spec.longest)
        recorder, is_new = self._records.of(self._thread.generation_of(cache), embeddings, cache)
        is_prefill = is_new or length > 1 or cache is None
        prompt = self._prompt(embeddings, cache, past) if is_prefill else None
        common = (self.spec, self.method, self.layer_cuts, recorder, length, past, cache, self.group)
        if prompt is not None:
            question = self._question(prompt, embeddings, recorder)
            vision = self._thread.find_vision()
            own = self._thread.generation_of(cache)
            guidance = own.guidance if own is not None else None
            self._thread.forward = Prefill(
                *common, prompt=prompt, cuts=self.cuts, vision=vision, guidance=guidance, question=question
            )
        elif not is_prefill and cache is not None:
            self._thread.forward = Decode(*common)
        else:
            self._thread.forward = Forward(*common)
        if is_new:
            encodings = self._thread.find_encodings()
            encoded = encodings.images if encodings is not None else ()
            recorder.begin_prefill(batch, length, past, cache, prompt, encoded)
            recorder.unseen = self._thread.inputs is not None and self._thread.inputs.unseen

    def _cache(self, call: Call) -> Cache | None:
        """Return the cache that the decoder will use, with layers that can evict tokens."""
        decoder: Any = self.spec.decoder
        cache = call.get(CACHE)
        use_cache = call["use_cache"] if call.get("use_cache") is not None else decoder.config.use_cache
        recomputes = recomputes_layers(decoder)
        if any(self.layer_cuts):
            check_layer_cuts(call, decoder.config, recomputes)
        if cache is None and use_cache and not recomputes:
            cache = DynamicCache(config=decoder.config)
        if cache is not None:
            make_trimmable(cache, decoder.config)
            check_lacking(cache, (cut.lacking if cut is not None else None for cut in self.layer_cuts))
        return cache

    def _prompt(self, embeddings: Tensor, cache: Cache | None, past: int) -> Prompt | None:
        """Read the prompt of a prefill. None if neither the prompt nor the cache has visual tokens."""
        batch, length = embeddings.shape[:2]
        inputs, generation = self._thread.inputs, self._thread.generation_of(cache)
        layers = cache.layers if cache is not None else []
        for cached in layers:
            cached.prompt_length = past + length
            cached.straighten()
        if inputs is None or (not inputs.placeholders and not any(cached.tokens for cached in layers)):
            return None
        encodings = self._thread.find_encodings()
        inputs = inputs.with_shapes(encodings.shapes if encodings is not None else {})
        if inputs.padding_mask is not None:
            for cached in layers:
                cached.note_padding(inputs.padding_mask[:, :past].to(embeddings.device))
        # Without a cache, later passes repeat the prefill and must select the same tokens.
        repeats = generation is not None and cache is None
        ranking = generation.ranking if generation is not None and repeats else None
        prompt = read_prompt(inputs, batch, past, length, embeddings.device, ranking)
        if generation is not None and repeats:
            generation.ranking = prompt.ranking
        for cached in layers:
            cached.crop_limit_if_trimmed = prompt.crop_limit
        return prompt

    def _question(self, prompt: Prompt, embeddings: Tensor, recorder: Recorder) -> Tensor | None:
        """Run the decoder on the questions alone, if the method reads them and there are images."""
        if not self.method.reads_question or not any(prompt.tokens.n_visual):
            return None
        with recorder.selecting():
            question, lengths = read_question(self.spec.decoder, prompt, embeddings)
        # A sample without images has a question only because of the batch.
        recorder.read_question(tuple(n if v else 0 for n, v in zip(lengths, prompt.tokens.n_visual, strict=True)))
        return question

    def _before_layer(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: Call
    ) -> tuple[tuple[Any, ...], Call] | None:
        forward = self._thread.forward
        if forward is None:
            return None
        # Looking ahead at this layer must not use the plan of the previous one.
        forward.plan = None
        changed = forward.before_layer(i, args[0] if args else kwargs["hidden_states"], kwargs)
        if self.layer_cuts[i] is not None:
            forward.plan = forward.plan_layer(i)
        if changed is None:
            return None
        hidden, arguments = changed
        if not args:
            return (), kwargs | arguments | {"hidden_states": hidden}
        return (hidden, *args[1:]), kwargs | arguments

    def _left_of_pass(self) -> tuple[Tensor | None, Sequence[Merge]]:
        """Return the remaining tokens of this pass; see `vistrim.engine.passes.deepstack.FindLeft`."""
        forward = self._thread.forward
        return forward.left if forward is not None else (None, ())

    def _intercept(self, i: int) -> interception.Interception | None:
        return self._thread.forward.intercept(i) if self._thread.forward is not None else None

    def _split_rows(self) -> RowSplit | None:
        forward = self._thread.forward
        return forward.plan.rows if forward is not None and forward.plan is not None else None

    def _end_forward(self, output: Any) -> Any:
        forward, self._thread.forward = self._thread.forward, None
        self._leave("decoder")
        if forward is not None:
            # The plan refers back to the pass. The cycle would keep its tensors until garbage collection.
            forward.plan = None
        if forward is None or output is None:
            return output
        if forward.recorder.in_prefill:
            self.remember(forward.recorder)
        forward.recorder.end_forward(forward.cache)
        last = output.last_hidden_state
        output.last_hidden_state = forward.restored(last)
        if output.hidden_states is not None and output.hidden_states[-1] is last:
            output.hidden_states = (*output.hidden_states[:-1], output.last_hidden_state)
        return output
