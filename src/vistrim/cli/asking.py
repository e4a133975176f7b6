"""Answers of a trimmed model, alone or compared with the untouched model."""

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
    """The answer to one prompt.

    Attributes
    ----------
    prompt, text : str
        Question, and answer of the trimmed model.
    report : TrimReport
        Report of the trimmed run, or of one of several.
    inputs : BatchFeature
        Inputs of the model.
    untouched : str or None
        Answer of the untouched model; None without a comparison.
    comparison : Comparison or None
        Measurements of both models; None without a comparison.
    """

    prompt: str
    text: str
    report: TrimReport
    inputs: Any
    untouched: str | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Asker:
    """A model that answers prompts about a fixed set of images.

    Attributes
    ----------
    model, processor
        As `vistrim.load` returns them.
    trim : Trim
        The prepared trim of the model, detached.
    images : sequence of PIL.Image.Image
        Images of every prompt.
    max_new_tokens : int
        Longest answer, in tokens.
    repeats : int
        Pairs of runs with the untouched and the trimmed model; 0 for one run of the trimmed model alone.
    streamer : callable or None
        Makes a streamer that shows an answer during generation, given the side, or None if there is only one.
    trace : bool
        Whether reports have a trace, for which ``trim`` must be prepared. In a comparison, the trace is from a separate
        run that ends with the first token, so that timed runs are without tracing.
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
            If the model cannot process the prompt.
        UnsupportedGenerationError
            If the method does not support the generation settings.
        """
        inputs = build_inputs(self.model, self.processor, self.images, prompt, self.max_new_tokens)
        try:
            return self._compared(prompt, inputs) if self.repeats else self._alone(prompt, inputs)
        # transformers raises it if processor, config and weights do not match.
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
