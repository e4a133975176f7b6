"""Trimming of a model with a method: the main entry point of vistrim."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from torch import Tensor, nn

from vistrim._utils.releases import check_release
from vistrim.engine.engine import Engine
from vistrim.engine.report.trim_report import TrimReport
from vistrim.errors import ParameterError
from vistrim.methods.base.method import Method
from vistrim.methods.base.notation import as_method

REPORTS = 16
"""Default number of reports that a handle keeps."""


class Trim:
    """A model and the method that trims it: a context manager, or a handle with `attach` and `detach`.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, or an adapter around one.
    method : Method
        The method.
    reports : int or None
        Number of reports to keep, at least 1. None: all.
    trace : bool
        Whether each report has a `vistrim.Trace`.

    Attributes
    ----------
    model : PreTrainedModel or PeftModel
        The model.
    method : Method
        The method, as given.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be trimmed correctly.
    ValueError
        If the parameters of the method do not fit the model.
    MethodError
        If the method does not follow the interface of `Method`.
    """

    def __init__(self, model: nn.Module, method: Method, reports: int | None = REPORTS, trace: bool = False) -> None:
        self.model = model
        self.method = method
        self._engine = _make_engine(model, method, reports, trace)

    def attach(self) -> "Trim":
        """Start trimming.

        Returns
        -------
        Trim
            This handle.

        Raises
        ------
        UnsupportedModelError
            If the model is already being trimmed, or a generation that began in an earlier context is still running.
        """
        self._engine.attach()
        return self

    def detach(self) -> None:
        """Stop trimming, and restore the model exactly.

        New calls are not trimmed. Calls that are still running in other threads are not waited for. They finish
        trimmed, and the last of them restores the model.
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
        """Specify where answers begin in the forward passes inside a ``with`` statement, in this thread.

        This is for passes that score answers without ``labels``. The last prompt token then ranks the visual tokens, as
        in generation. ``logits_to_keep`` (answer tokens + 1, as trainers pass it) does the same with one value for all
        samples.

        Parameters
        ----------
        first : int, sequence of int or Tensor
            Index of the first answer token in its row, including padding: one for all samples, or one for each
            (``[batch]`` long).

        Returns
        -------
        context manager
            To be used in a ``with`` statement around the forward passes.

        Raises
        ------
        TypeError
            If ``first`` does not contain integers.
        ValueError
            In the forward pass, if it has a different number of samples, or visual tokens after that index.

        Examples
        --------
        >>> with run.answer_from(completion_mask.int().argmax(1)):
        ...     logits = model(**inputs).logits
        """
        return self._engine.answer_from(first)

    @property
    def reports(self) -> list[TrimReport]:
        """Reports of the last generations and bare forward passes, oldest first (see `trim` for their number)."""
        return [recorder.report() for recorder in tuple(self._engine.recorders)]

    @property
    def report(self) -> TrimReport:
        """Report of the last generation or bare forward pass.

        Raises
        ------
        RuntimeError
            If there has been none yet.
        """
        if not self._engine.recorders:
            raise RuntimeError("there is no report yet: call model.generate(...) while the model is being trimmed")
        return self._engine.recorders[-1].report()


def trim(model: nn.Module, method: Method | str, reports: int | None = REPORTS, trace: bool = False) -> Trim:
    """Trim the visual tokens of a model.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation from ``transformers``, or a ``peft`` adapter around one that modifies its
        modules, such as LoRA.
    method : Method or str
        The method, for example ``vistrim.ST3()``, or its notation, for example ``"fastervlm:keep=0.5+st3"``.
    reports : int or None
        Number of reports to keep, at least 1: those of the last generations and bare forward passes. None keeps all, so
        that memory grows with every call. A report consists of plain numbers and holds no tensors.
    trace : bool
        Whether each report has a ``trace``: the visual tokens that each layer held at each step, and their locations in
        the images (`vistrim.Trace`). Answers stay bit-identical. Copying the trace to the host counts as decoding time,
        so do not measure speed with a trace.

    Returns
    -------
    Trim
        A context manager for a ``with`` statement around ``model.generate(...)`` or a forward pass, or a handle with
        ``attach`` and ``detach``. Its ``report`` has the measurements.

    Raises
    ------
    UnsupportedReleaseError
        If vistrim was not tested with the installed transformers release.
    UnsupportedModelError
        If the structure of the model is not supported.
    ValueError
        If the parameters of the method do not fit the model, its notation is wrong, or ``reports`` is out of range.
    MethodError
        If the method does not follow the interface of `Method`.
    TypeError
        If ``method`` is neither a method nor a string.

    Notes
    -----
    Text is never removed. Neither are visual tokens whose output is needed: the last token of a prompt that ends with
    an image, and tokens directly before a label. The logits of removed tokens are zero, because they are not computed.
    ``hidden_states`` and ``attentions`` of each layer have only the rows that the layer computed.

    In a forward pass over a prompt and its answer, the last prompt token ranks the visual tokens, as in generation, if
    the pass specifies it: by labels, by ``logits_to_keep`` (answer tokens + 1) or by `Trim.answer_from`. There is no
    decode-time trimming in such a pass.

    Examples
    --------
    >>> with vistrim.trim(model, vistrim.ST3()) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64)
    >>> print(run.report)
    >>> run = vistrim.trim(model, "fastervlm:keep=0.5+st3").attach()
    """
    check_release()
    if reports is not None and (type(reports) is not int or reports < 1):
        raise ValueError(f"reports={reports!r}: pass the number of reports to keep, at least 1, or None for all")
    return Trim(model, as_method(method), reports, trace)


def _make_engine(model: nn.Module, method: Method, reports: int | None, trace: bool) -> Engine:
    if method.ranks_by != "guide":
        return Engine(model, method, reports, trace)
    # Imported here because few methods have a guide model.
    from vistrim.engine.guide.guided_engine import GuidedEngine

    return GuidedEngine(model, method, reports, trace)


def prepare_trim(model: nn.Module, method: Method, trace: bool = False) -> Trim:
    """Call `trim`, but raise a distinct error if the method does not fit the model.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        A multimodal model for generation, or an adapter around one.
    method : Method
        The method.
    trace : bool
        Whether each report has a `vistrim.Trace`.

    Returns
    -------
    Trim
        The handle.

    Raises
    ------
    ParameterError
        If the parameters of the method do not fit the model.
    UnsupportedModelError
        If the structure of the model is not supported.
    """
    try:
        return trim(model, method, trace=trace)
    except ValueError as error:
        raise ParameterError(str(error)) from error
