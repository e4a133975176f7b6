"""Errors that vistrim raises."""


class VistrimError(Exception):
    """Base class of all errors that vistrim raises on purpose. The message names the fix."""


class UnsupportedModelError(VistrimError):
    """The engine cannot trim a model of this structure correctly."""


class UnsupportedGenerationError(VistrimError):
    """The model is supported, but not with this cache, attention kernel or generation mode."""


class UnsupportedReleaseError(VistrimError):
    """vistrim was not tested with the installed release of transformers."""


class MethodError(VistrimError):
    """A method returned an invalid result. The message names the method and the result."""


class ParameterError(VistrimError, ValueError):
    """A method's parameters do not fit the model."""


class LoadError(VistrimError):
    """A model or processor could not be loaded."""


class MissingPackageError(VistrimError):
    """An optional package is not installed."""


class InputError(VistrimError):
    """A file that was given, of questions or an image, cannot be used."""


class PromptError(VistrimError):
    """The model cannot process a prompt."""


class ResumeError(VistrimError):
    """The stored results belong to a run with other settings, or are damaged."""


class InUseError(ResumeError):
    """Another run writes to the same file."""


class BenchmarkError(VistrimError):
    """A benchmark cannot build its model, measure it, or fit it into memory."""
