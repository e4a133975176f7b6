"""What is checked: a model, its prompts, and the runs that several checks look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image, ImageOps

from vistrim.checking.closeness import Tolerance, difference
from vistrim.checking.generations import Generated, generate, settings
from vistrim.checking.masked_model import Hidden, hide_nothing, masked_logits
from vistrim.checking.removed import Sample
from vistrim.engine import ModelSpec
from vistrim.engine.report.trim_report import TrimReport
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError
from vistrim.methods import Method
from vistrim.prompting import check_context, format_prompts
from vistrim.trimming import Trim, trim

OTHER_PROMPTS = ("What color is the star?", "What can be seen in this image, and where in it is it?")
"""One of them differs in length from any prompt, so that a batch of both has padding."""


class NotPossibleError(Exception):
    """A check cannot be made on this model; the message is the reason."""


@dataclass
class Subject:
    """A model and its prompts.

    Attributes
    ----------
    model : PreTrainedModel
        Not being trimmed.
    spec : ModelSpec
        What `vistrim.engine.describe` found in it.
    processor : ProcessorMixin
        Its processor.
    image : PIL.Image.Image
        What is asked about.
    prompt : str
        What is asked.
    new_tokens : int
        Length of each answer.
    """

    model: Any
    spec: ModelSpec
    processor: Any
    image: Image.Image
    prompt: str
    new_tokens: int
    _runs: dict[Method, tuple[Generated, TrimReport]] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, Any]:
        """Arguments of ``generate``; text alone is answered."""
        special = {*self.spec.visual_token_ids.values(), *self.processor.tokenizer.all_special_ids}
        return settings(self.new_tokens, sorted(special))

    @cached_property
    def inputs(self) -> Any:
        """The prompt, alone."""
        inputs = self._inputs([self.prompt], [self.image])
        check_context(self.model, inputs, self.new_tokens)
        return inputs

    @cached_property
    def sample(self) -> Sample:
        """Where its tokens are."""
        return self.sample_of(self.inputs)

    @cached_property
    def untouched(self) -> Generated:
        """The untouched model's answer."""
        return self.generate(self.inputs)

    @cached_property
    def tolerance(self) -> Tolerance:
        """What counts as equal to the masked model: the untouched model against itself."""
        plain = self.masked(self.inputs, self.untouched.tokens[0])
        return Tolerance(self.model.dtype, difference(self.untouched.logits[0], plain))

    @cached_property
    def pair(self) -> tuple[Any, list[Any]]:
        """Two prompts of different lengths as a batch, and each alone.

        Raises
        ------
        NotPossibleError
            If the processor writes a prompt differently in a batch.
        """
        images = [self.image, ImageOps.mirror(self.image)]
        for other in OTHER_PROMPTS:
            alone = [self._inputs([text], [image]) for text, image in zip([self.prompt, other], images, strict=True)]
            if alone[0]["input_ids"].shape != alone[1]["input_ids"].shape:
                break
        try:
            batch = self._inputs([self.prompt, other], images)
        except ValueError as error:
            raise NotPossibleError(f"the processor makes no batch of them: {error}") from error
        for row, own in zip(batch["input_ids"], alone, strict=True):
            if not torch.equal(row[len(row) - own["input_ids"].shape[1] :], own["input_ids"][0]):
                raise NotPossibleError("the processor writes a prompt differently in a batch")
        return batch, alone

    def sample_of(self, inputs: Mapping[str, Any], number: int = 0, width: int | None = None) -> Sample:
        """Where the tokens of a sample alone are, as number ``number`` in a batch of ``width`` columns."""
        ids = inputs["input_ids"][0]
        places = torch.isin(ids, ids.new_tensor(list(self.spec.visual_token_ids.values()))).nonzero()[:, 0].tolist()
        # The last token of a prompt gives the answer.
        visual = tuple(place for place in places if place < len(ids) - 1)
        return Sample(number, 0 if width is None else width - len(ids), len(ids), visual)

    def generate(self, inputs: Mapping[str, Any]) -> Generated:
        """Let the model answer, as it is now."""
        return generate(self.model, self.spec, inputs, **self.options)

    def masked(self, inputs: Mapping[str, Any], answer: torch.Tensor, hidden: Hidden | None = None) -> torch.Tensor:
        """Logits of an answer by the masked model, which hides nothing by default."""
        nothing = hide_nothing(len(answer), len(self.spec.layers))
        return masked_logits(self.model, self.spec, inputs, answer, nothing if hidden is None else hidden)

    def trimmed(self, method: Method) -> tuple[Generated, TrimReport]:
        """Answer to the prompt under a method, and the report.

        Raises
        ------
        NotPossibleError
            If the model cannot be trimmed so.
        """
        if method not in self._runs:
            with self.under(method) as run:
                generated = self.generate(self.inputs)
            self._runs[method] = generated, run.report
        return self._runs[method]

    @contextmanager
    def under(self, method: Method) -> Iterator[Trim]:
        """Trim the model.

        Raises
        ------
        NotPossibleError
            If the model cannot be trimmed so.
        """
        try:
            run = trim(self.model, method)
        except (UnsupportedModelError, ValueError) as error:
            raise NotPossibleError(str(error)) from error
        try:
            with run:
                yield run
        except UnsupportedGenerationError as error:
            raise NotPossibleError(str(error)) from error

    def _inputs(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Any:
        inputs = format_prompts(self.processor, prompts, [[image] for image in images])
        return inputs.to(self.spec.device, dtype=self.model.dtype)
