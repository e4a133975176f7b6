"""One batch: a single call of ``generate`` that answers several jobs."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from vistrim.benchmark.marks import mark_times
from vistrim.engine import ModelSpec
from vistrim.serving.collating import Sample
from vistrim.serving.detokenizing import Detokenizer
from vistrim.serving.figures import Measured
from vistrim.serving.jobs import Job
from vistrim.serving.rows import Row
from vistrim.serving.sampling import RowSampler
from vistrim.serving.stopping import RowStops
from vistrim.serving.streamer import BatchStreamer
from vistrim.trimming import trim


class BatchRunner:
    """Answers batches with a model.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    tokenizer : PreTrainedTokenizerBase
        The tokenizer, used by no other thread.
    spec : ModelSpec
        Description of the model.

    Attributes
    ----------
    kv_bytes : int
        Bytes of the KV cache of the running batch, measured when an answer is complete. 0 between batches, and for the
        untouched model.
    """

    kv_bytes = 0

    def __init__(self, model: Any, tokenizer: Any, spec: ModelSpec) -> None:
        self._model, self._tokenizer, self._spec = model, tokenizer, spec
        self._measured = Measured(spec)
        self._devices = tuple({parameter.device for parameter in model.parameters()})
        end = model.generation_config.eos_token_id
        self._ends = frozenset([] if end is None else [end] if isinstance(end, int) else end)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else min(self._ends, default=0)

    @torch.no_grad()
    def run(self, jobs: Sequence[Job], inputs: Sample) -> None:
        """Answer jobs. Each answer is delivered as soon as it is complete.

        Parameters
        ----------
        jobs : sequence of Job
            Jobs of one group, one per row.
        inputs : mapping of str to Tensor
            The batch of their prompts.

        Raises
        ------
        Exception
            Whatever the method or the model raises. Answers that were complete before have been delivered.
        """
        began = time.monotonic()
        rows = [
            Row(
                limit=job.limit,
                stops=job.stops,
                ends=self._ends,
                deadline=job.deadline,
                is_cancelled=lambda job=job: job.is_cancelled,  # type: ignore[misc]
                detokenizer=Detokenizer(self._tokenizer),
            )
            for job in jobs
        ]
        sampler = RowSampler([job.sampling for job in jobs], jobs[0].top_logprobs)
        method = jobs[0].method
        with ExitStack() as stack:
            stack.callback(setattr, self, "kv_bytes", 0)
            run = None
            if method is not None:
                handle = trim(self._model, method, reports=1, trace=any(job.trace for job in jobs))
                run = stack.enter_context(handle)
            marks = stack.enter_context(mark_times(self._model, self._spec, self._devices))

            def deliver() -> None:
                complete = [i for i, (job, row) in enumerate(zip(jobs, rows, strict=True)) if job.advance(row)]
                report = run.report if complete and run is not None else None
                self.kv_bytes = self.kv_bytes if report is None else report.kv_bytes
                for i in complete:
                    jobs[i].end(rows[i], self._measured.of(jobs, i, rows[i], began, marks, report))

            self._model.generate(
                **self._on_device(inputs),
                max_new_tokens=max(job.limit for job in jobs),
                do_sample=False,
                num_beams=1,
                num_return_sequences=1,
                use_cache=True,
                return_dict_in_generate=False,
                pad_token_id=self._pad,
                logits_processor=[sampler],
                stopping_criteria=[RowStops(rows, sampler)],
                streamer=BatchStreamer(deliver),
            )

    def _on_device(self, inputs: Sample) -> dict[str, torch.Tensor]:
        model = self._model
        return {
            name: value.to(model.device, dtype=model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
