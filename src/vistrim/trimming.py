"""The front door: trim a model with a method."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from torch import Tensor, nn

from vistrim.engine.engine import Engine
from vistrim.engine.releases import check_release
from vistrim.engine.report.trim_report import TrimReport
from vistrim.errors import ParameterError
from vistrim.methods.base.method import Method

REPORTS = 16
"""Reports that a handle keeps, unless it is told otherwise."""


class Trim:
    """A model under a method: a context manager, or a handle with `attach` and `detach`.

    Attributes
    ----------
    model : PreTrainedModel or PeftModel
        The model.
    method : Method
        What is trimmed.
    """

    def __init__(self, model: nn.Module, method: Method, reports: int | None = REPORTS, trace: bool = False) -> None:
        self.model = model
        self.method = method
        self._engine = _make_engine(model, method, reports, trace)

    def attach(self) -> "Trim":
        """Start trimming.

        Raises
        ------
        UnsupportedModelError
            If the model is already being trimmed, or a generation of then is still running.
        """
        self._engine.attach()
        return self

    def detach(self) -> None:
        """Stop trimming and leave the model exactly as it was.

        Does not wait for other threads. Generations and forward passes that are running finish trimmed, as they began;
        from now on new ones are not trimmed, and the last of the old ones leaves the model as it was.
        """
        self._engine.detach()

    def __repr__(self) -> str:
        seen = self._engine.seen
        return (
            f"<Trim of {self._engine.spec.name} by {self._engine.notation}: "
            f"{'attached' if self._engine.is_attached else 'detached'}, {seen} generation{'s' * (seen != 1)} seen>"
        )

    def __enter__(self) -> "Trim":
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def answer_from(self, first: int | Sequence[int] | Tensor) -> AbstractContextManager[None]:
        """Say where answers begin in the forward passes inside a ``with`` statement, in this thread.

        For passes that score answers without ``labels``, so that visual tokens are chosen by the last prompt token, as
        in generation. ``logits_to_keep`` (answer tokens + 1, as trainers pass it) says it too, for all samples at once.

        Parameters
        ----------
        first : int, sequence of int or Tensor
            Place of the first answer token in its row, padding included: one for all samples, or one for each.

        Raises
        ------
        TypeError
            If places are no whole numbers.
        ValueError
            In the forward pass, if it has another number of samples, or visual tokens behind that place.

        Examples
        --------
        >>> with run.answer_from(completion_mask.int().argmax(1)):
        ...     logits = model(**inputs).logits
        """
        return self._engine.answer_from(first)

    @property
    def reports(self) -> list[TrimReport]:
        """Reports of the last generations and bare forward passes (see `trim`), oldest first."""
        return [recorder.report() for recorder in tuple(self._engine.recorders)]

    @property
    def report(self) -> TrimReport:
        """Report of the last generation.

        Raises
        ------
        RuntimeError
            If there was none yet.
        """
        if not self._engine.recorders:
            raise RuntimeError("nothing was generated yet: call model.generate(...) while the model is being trimmed")
        return self._engine.recorders[-1].report()


def trim(model: nn.Module, method: Method, reports: int | None = REPORTS, trace: bool = False) -> Trim:
    """Trim the visual tokens of a model.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, from ``transformers``, or an adapter of ``peft`` around one that changes its
        modules, such as LoRA.
    method : Method
        What to trim, for example ``vistrim.ST3()``.
    reports : int or None
        How many reports are kept, at least 1: those of the last generations and bare forward passes. None keeps all,
        and memory grows with every call. A report is plain numbers and holds no tensor.
    trace : bool
        Whether each report has a `trace`: which visual tokens each layer held at each step, and where they lie on their
        images (`vistrim.Trace`). Answers stay the same, bit for bit. Reports then count the time of copying this to the
        host as decoding time, so do not measure speed with a trace.

    Returns
    -------
    Trim
        To be used in a ``with`` statement around ``model.generate(...)`` or a forward pass, or by its ``attach`` and
        ``detach``. Its ``report`` tells what was gained.

    Raises
    ------
    UnsupportedReleaseError
        If the installed transformers release is none that vistrim was tested with.
    UnsupportedModelError
        If the model's structure cannot be trimmed correctly.
    ValueError
        If the method's parameters do not fit the model, or ``reports`` is out of range.
    MethodError
        If the method is not written as a method has to be.
    TypeError
        If ``method`` is no method.

    Notes
    -----
    Text is never removed. Nor is a visual token that something depends on: the last token of a prompt that ends with an
    image, or one directly in front of a label. The logits at removed tokens are zero: they were not computed.
    ``hidden_states`` and ``attentions`` of single layers have the rows that these layers computed.

    In one forward pass over a prompt with its answer, visual tokens are chosen by the last prompt token, as in
    generation, where the pass tells it: by labels, by ``logits_to_keep`` (answer tokens + 1) or by `Trim.answer_from`.
    Decode-time trimming does not take place.

    Examples
    --------
    >>> with vistrim.trim(model, vistrim.ST3()) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64)
    >>> print(run.report)
    """
    check_release()
    if not isinstance(method, Method):
        raise TypeError(
            f"method must be a method object such as vistrim.ST3(), not {method!r}: "
            "vistrim.get_method('st3') builds one by its name"
        )
    if reports is not None and (type(reports) is not int or reports < 1):
        raise ValueError(f"reports={reports!r}: give how many of the last reports to keep, at least 1, or None for all")
    return Trim(model, method, reports, trace)


def _make_engine(model: nn.Module, method: Method, reports: int | None, trace: bool) -> Engine:
    if method.ranks_by != "guide":
        return Engine(model, method, reports, trace)
    # Few methods ask a second model first.
    from vistrim.engine.guide.guided_engine import GuidedEngine

    return GuidedEngine(model, method, reports, trace)


def prepare_trim(model: nn.Module, method: Method, trace: bool = False) -> Trim:
    """Trim as `trim` does, with an error of its own where the method does not fit, for what has to tell it from others.

    Raises
    ------
    ParameterError
        If the method's parameters do not fit the model.
    UnsupportedModelError
        See `trim`.
    """
    try:
        return trim(model, method, trace=trace)
    except ValueError as error:
        raise ParameterError(str(error)) from error
