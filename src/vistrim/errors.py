"""Errors with which vistrim refuses what it cannot do right."""


class VistrimError(Exception):
    """Base class of every error that vistrim raises on purpose; its message names the fix."""


class UnsupportedModelError(VistrimError):
    """The model's structure is not one that the engine can trim correctly."""


class UnsupportedGenerationError(VistrimError):
    """The model is supported, but not with this cache, attention kernel or generation mode."""


class UnsupportedReleaseError(VistrimError):
    """The installed transformers release is none that vistrim was tested with."""


class MethodError(VistrimError):
    """A method has not answered as methods have to; says which one, and what it returned."""


class ParameterError(VistrimError, ValueError):
    """A method's parameters do not fit the model."""


class LoadError(VistrimError):
    """A model or processor could not be loaded."""


class MissingPackageError(VistrimError):
    """A package that only some commands need is not installed."""


class InputError(VistrimError):
    """A file that was given, of questions or an image, cannot be used."""


class PromptError(VistrimError):
    """A prompt cannot be given to the model."""


class ResumeError(VistrimError):
    """What was left unfinished belongs to other settings, or is damaged."""


class InUseError(ResumeError):
    """Another run writes to the same file."""


class BenchmarkError(VistrimError):
    """What a benchmark is asked to measure cannot be made, measured, or put into memory."""
