"""Load a multimodal model and its processor as stock transformers objects, with clear errors."""

import difflib
import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vistrim._utils.memory import is_out_of_memory
from vistrim._version import __version__
from vistrim.errors import LoadError
from vistrim.processor_packages import INSTALL, missing_packages, named_packages
from vistrim.shipped import NAMES, weights_path

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Names of the dtypes in which a model can be loaded, besides "auto"."""
KINDS = ("model_type", "image_processor_type", "video_processor_type")
"""Settings that name a class. They are equal in all its objects, and tell it from another one."""


def load(name_or_path: str | Path, *, dtype: torch.dtype | str = "auto", device: str = "auto") -> tuple[Any, Any]:
    """Load an image-text-to-text model and its processor, ready for ``generate``.

    Both are stock objects from transformers' Auto classes. The model is in evaluation mode, and the tokenizer pads on
    the left. Code that comes with a checkpoint is never run.

    Parameters
    ----------
    name_or_path : str or Path
        A reference model of this project (a name in ``vistrim.shipped.NAMES``), a directory written by
        ``save_pretrained``, or a Hugging Face id such as ``"llava-hf/llava-1.5-7b-hf"``.
    dtype : torch.dtype or str
        Dtype of the weights: a floating-point torch dtype or its name, or "auto" for the dtype of the checkpoint.
    device : str
        A torch device such as "cpu" or "cuda:0". "auto" is an accelerator if there is one, otherwise the CPU.

    Returns
    -------
    model : PreTrainedModel
        The model, on the device.
    processor : ProcessorMixin
        Its processor.

    Raises
    ------
    LoadError
        If the model does not exist, cannot be downloaded, is damaged or incomplete, does not take images, or does not
        fit on the device; if its processor needs packages that are not installed; or if ``dtype`` or ``device`` is not
        available. The message is one line and names the fix.
    """
    name = str(name_or_path)
    weights_dtype = resolve_dtype(dtype)
    where = resolve_device(device)
    source = _locate(name)
    config = _read_config(name, source)
    # The processor is small and often missing. Load it before downloading the weights.
    processor = _load_processor(name, source, config.model_type)
    return _load_model(name, source, weights_dtype, where), processor


def load_config(name_or_path: str | Path) -> Any:
    """Load only the config of an image-text-to-text model, without its weights.

    Parameters
    ----------
    name_or_path : str or Path
        As in `load`.

    Returns
    -------
    PreTrainedConfig
        The config.

    Raises
    ------
    LoadError
        If there is no config, or it is for another kind of model. The message is one line and names the fix.
    """
    name = str(name_or_path)
    return _read_config(name, _locate(name))


def load_processor(name_or_path: str | Path) -> Any:
    """Load only the processor of a model, without the weights. Its tokenizer pads on the left.

    Parameters
    ----------
    name_or_path : str or Path
        As in `load`.

    Returns
    -------
    ProcessorMixin
        The processor.

    Raises
    ------
    LoadError
        If there is no processor, or it is incomplete. The message is one line and names the fix.
    """
    name = str(name_or_path)
    source = _locate(name)
    return _load_processor(name, source, _read_config(name, source).model_type)


def is_local(name_or_path: str | Path) -> bool:
    """Whether a name is that of a reference model or of an existing directory."""
    return str(name_or_path) in NAMES or os.path.isdir(os.path.expanduser(name_or_path))


def is_on_hub(name_or_path: str | Path) -> bool:
    """Whether a name is looked up on the Hugging Face Hub, and in its cache on this machine.

    Raises
    ------
    LoadError
        If it is neither such a name nor that of a model on this machine.
    """
    name = str(name_or_path)
    return not is_local(name) and _locate(name) == name


def fingerprint(model: Any, processor: Any) -> str:
    """Compute a hash that tells apart models of the same name, and does not depend on the release of transformers.

    It covers the settings of model, generation and processor, the chat template, the vocabulary, and the first values
    of every weight.
    """
    digest = hashlib.sha256()
    parts = [model.config, model.generation_config, processor.image_processor]
    if (video := getattr(processor, "video_processor", None)) is not None:
        parts.append(video)
    settings = [*map(_settings, parts), _own_settings(processor)]
    for content in (settings, processor.chat_template, processor.tokenizer.get_vocab()):
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    return weights_digest(model, digest)


def _settings(part: Any) -> dict[str, Any]:
    """Settings of a config, or of a part of a processor, that differ from the defaults of its class.

    A release of transformers adds settings whose defaults change nothing, and writes its version.
    """
    # As in transformers, some classes cannot be made without arguments, and have no defaults.
    default = {} if getattr(part, "has_no_defaults_at_init", False) else type(part)().to_dict()
    values, defaults = (json.loads(json.dumps(each, default=str)) for each in (part.to_dict(), default))
    found = {name: value for name, value in values.items() if name in KINDS or value != defaults.get(name)}
    found |= {name: _settings(value) for name, value in vars(part).items() if isinstance(value, PreTrainedConfig)}
    return {name: value for name, value in found.items() if not name.startswith("_")}


def _own_settings(processor: Any) -> dict[str, Any]:
    """Settings of a processor that differ from its defaults, without those of its parts."""
    defaults = {name: each.default for name, each in inspect.signature(type(processor)).parameters.items()}
    # A processor from outside of transformers may have no such method.
    apart = {*getattr(processor, "get_attributes", tuple)(), "chat_template"}
    values = {name: getattr(processor, name) for name in defaults if name not in apart and hasattr(processor, name)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def weights_digest(model: Any, digest: Any = None) -> str:
    """Tell weights apart by the first values of each; goes on from ``digest`` where one is given."""
    digest = digest or hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def identity(model: Any, processor: Any) -> dict[str, str]:
    """What results must share to be put together: weights, number format, device and versions."""
    return {
        "weights": fingerprint(model, processor),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "vistrim": __version__,
        "transformers": transformers.__version__,
    }


def resolve_dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    """Convert the name of a dtype to the torch dtype. "auto" is returned unchanged.

    Raises
    ------
    LoadError
        If weights cannot have this dtype.
    """
    if isinstance(dtype, torch.dtype):
        if dtype.is_floating_point:
            return dtype
    elif dtype == "auto":
        return dtype
    elif dtype in DTYPES:
        return getattr(torch, dtype)
    raise LoadError(f"weights cannot have the dtype {str(dtype)!r}: choose auto, {', '.join(DTYPES)}")


def resolve_device(device: str) -> torch.device:
    """Convert the name of a device to a torch device that exists.

    Raises
    ------
    LoadError
        If the name is not valid, or this machine has no such device.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return found or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise LoadError(f"no device {device!r}: choose auto, cpu, cuda, cuda:1 or another torch device") from error
    if wanted.type == "cpu":
        return torch.device("cpu")
    if found is None or found.type != wanted.type:
        raise LoadError(f"device {device!r} is not available here: use device {found.type if found else 'cpu'}")
    last = torch.accelerator.device_count() - 1
    if (wanted.index or 0) > last:
        raise LoadError(f"device {device!r} does not exist: the last one is {wanted.type}:{last}")
    return wanted


def _locate(name: str) -> str:
    """Return the directory of a reference model or a local model, or the Hub id unchanged."""
    if name in NAMES:
        try:
            return str(weights_path(name))
        except FileNotFoundError as error:
            raise LoadError(" ".join(str(error).split())) from error
    path = Path(os.path.expanduser(name))
    # Path("") would be the current directory.
    exists = bool(name) and path.exists()
    if exists and path.is_dir():
        if not (path / "config.json").is_file():
            raise LoadError(f"{name} has no config.json: pass the directory that save_pretrained wrote")
        return str(path)
    if exists:
        raise LoadError(f"{name} is a file: pass the model's directory, which contains config.json")
    if not name or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise LoadError(f"there is no model directory {name!r}: check the path")
    if "/" not in name and (near := difflib.get_close_matches(name.lower(), NAMES, n=1)):
        raise LoadError(f"no model called {name!r}: did you mean {near[0]!r}?")
    return name


def _read_config(name: str, source: str) -> Any:
    try:
        # trust_remote_code=None would ask on the terminal and read the answer from piped prompts.
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise _load_error(name, "configuration", error) from error
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        classes = ", ".join(config.architectures or [])
        raise LoadError(
            f"{name} is a {config.model_type} model{f' ({classes})' if classes else ''} and does not answer "
            "questions about images: use an image-text-to-text model, for example 'reference' or "
            "llava-hf/llava-1.5-7b-hf"
        )
    return config


def _load_processor(name: str, source: str, model_type: str) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        named = [package for cause in _chain(error) for package in named_packages(cause)]
        if packages := dict.fromkeys([*missing_packages(model_type), *named]):
            raise LoadError(f"the processor of {name} needs {' and '.join(packages)}: run `{INSTALL}`") from error
        raise _load_error(name, "processor", error) from error
    missing = [part for part in ("tokenizer", "image_processor") if getattr(processor, part, None) is None]
    if missing:
        raise LoadError(
            f"{name} comes without {' and '.join(missing)}: add the files of the processor (processor.save_pretrained)"
        )
    if getattr(processor, "patch_size", 0) is None:
        raise LoadError(f"the processor of {name} has no patch_size: set it in processor_config.json as in config.json")
    processor.tokenizer.padding_side = "left"
    return processor


def _load_model(name: str, source: str, dtype: torch.dtype | str, device: torch.device) -> Any:
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, device_map={"": device}, output_loading_info=True, trust_remote_code=False
        )
    except Exception as error:
        raise _load_error(name, "weights", error) from error
    # transformers initializes missing weights randomly and only logs it.
    if info["missing_keys"]:
        raise LoadError(
            f"{name} lacks {len(info['missing_keys'])} of the model's weights, among them "
            f"{min(info['missing_keys'])}: download the checkpoint again, and check that its config.json matches"
        )
    return model.eval()


def _load_error(name: str, part: str, error: Exception) -> LoadError:
    """Describe in one line why a part could not be loaded. transformers raises nearly every type of exception."""
    if is_out_of_memory(error):
        return LoadError(f"{name} does not fit into memory: use dtype bfloat16, another device or a smaller model")
    causes = _chain(error)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return LoadError(f"{name} is gated: accept its license on huggingface.co, then log in with `hf auth login`")
    if any(isinstance(cause, (RepositoryNotFoundError, HFValidationError)) for cause in causes):
        return LoadError(
            f"there is no directory {name!r} and no such model on huggingface.co: check the spelling, and "
            "log in with `hf auth login` if it is private"
        )
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return LoadError(
            f"{name} is not on this machine and huggingface.co cannot be reached: check the network, or use "
            "a local directory or 'reference'"
        )
    if "trust_remote_code" in str(error):
        return LoadError(f"{name} needs remote code, which vistrim never runs: use a model that transformers supports")
    fix = {
        "configuration": "check its config.json, or upgrade transformers if the model is newer",
        "processor": "add or repair the files of the processor (processor.save_pretrained)",
        "weights": "download the checkpoint again, and check that its config.json matches",
    }[part]
    return LoadError(f"cannot load the {part} of {name} ({_one_line(error)}): {fix}")


def building_error(model_type: str, error: Exception) -> LoadError:
    """Describe in one line why no model can be built from a config. transformers raises any type of exception."""
    return LoadError(
        f"cannot build a {model_type} model from its config ({_one_line(error)}): check its config.json, and install "
        "the packages that the message names"
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


def _one_line(error: Exception, limit: int = 160) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
