"""Asking a model: trimmed alone, or next to the untouched one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vistrim import Trim, TrimReport
from vistrim.analysis import Comparison, compare
from vistrim.analysis.comparison import Side
from vistrim.cli.error_lines import CommandError
from vistrim.cli.prompts import build_inputs


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt.

    Attributes
    ----------
    prompt, text : str
        Question, and answer of the trimmed model.
    report : TrimReport
        Report of the trimmed run, or of one of several.
    inputs : BatchFeature
        What the model was given.
    untouched : str or None
        Answer of the untouched model, if it was asked.
    comparison : Comparison or None
        Measurements of both, if both were asked.
    """

    prompt: str
    text: str
    report: TrimReport
    inputs: Any
    untouched: str | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Asker:
    """A model to be asked about always the same images.

    Attributes
    ----------
    model, processor
        As `vistrim.load` returns them.
    trim : Trim
        The model under its method, detached.
    images : sequence of PIL.Image.Image
        All go into each prompt.
    max_new_tokens : int
        Longest answer.
    repeats : int
        Pairs of runs with the untouched and the trimmed model; 0: the trimmed model alone is asked, once.
    streamer : callable or None
        Makes the streamer that shows an answer while it is generated: a side's, or, for None, the only one.
    trace : bool
        Whether reports are to have a trace: ``trim`` is then made with one. Beside the untouched model it is of a run
        of its own, which ends with the first token, so that the timed runs have none.
    """

    model: Any
    processor: Any
    trim: Trim
    images: Sequence[Image.Image]
    max_new_tokens: int
    repeats: int
    streamer: Callable[[Side | None], Any] | None
    trace: bool = False

    def ask(self, prompt: str) -> Answer:
        """Generate an answer, greedily.

        Raises
        ------
        WrongUsageError, CommandError
            If the prompt cannot be given to the model.
        UnsupportedGenerationError
            If the model cannot be trimmed this way.
        """
        inputs = build_inputs(self.model, self.processor, self.images, prompt, self.max_new_tokens)
        try:
            return self._compared(prompt, inputs) if self.repeats else self._alone(prompt, inputs)
        # transformers' way of saying that processor, configuration and weights do not belong together.
        except ValueError as error:
            raise CommandError(f"the model cannot process these inputs ({error})") from error

    def _alone(self, prompt: str, inputs: Any) -> Answer:
        streamer = self.streamer(None) if self.streamer else None
        with self.trim:
            sequences = self.model.generate(**inputs, **self._greedy(), streamer=streamer)
        tokens = sequences[0, inputs["input_ids"].shape[1] :]
        return Answer(prompt, self._decode(tokens), self.trim.report, inputs)

    def _compared(self, prompt: str, inputs: Any) -> Answer:
        result = compare(
            self.model,
            inputs,
            self.trim.method,
            repeats=self.repeats,
            streamer=self.streamer,
            **self._greedy(),
        )
        report = result.report
        if self.trace:
            with self.trim:
                self.model.generate(**inputs, **self._greedy() | {"max_new_tokens": 1})
            report = replace(report, trace=self.trim.report.trace)
        return Answer(
            prompt,
            self._decode(result.trimmed.tokens),
            report,
            inputs,
            untouched=self._decode(result.untouched.tokens),
            comparison=result,
        )

    def _greedy(self) -> dict[str, Any]:
        return {"max_new_tokens": self.max_new_tokens, "do_sample": False, "num_beams": 1}

    def _decode(self, tokens: Any) -> str:
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
