"""Hash of a method, including the contents of its files and its guide model, which its notation only names."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.method import Method


def method_hash(method: Method, model: ModelFacts) -> str:
    """Compute a hash that also differs between methods with the same notation.

    It covers the parameters of the method, the contents of its files and the first values of the weights of its guide
    model.

    Parameters
    ----------
    method : Method
        The method.
    model : ModelFacts
        Model that the method runs on.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ValueError
        If the method does not fit the model, or if one of its files cannot be read.
    """
    digest = hashlib.sha256()
    _add(digest, method.fitted(model))
    return digest.hexdigest()[:16]


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, nn.Module):
        # The first values differ between models. Hashing all weights of a large guide model would take minutes.
        for name, tensor in value.state_dict().items():
            digest.update(name.encode())
            _add(digest, tensor.flatten()[:64])
    elif is_dataclass(value):
        digest.update(type(value).__name__.encode())
        # A parameter that was added later leaves the hashes of stored results as they are.
        unwritten = value.unwritten if isinstance(value, Method) else ()
        for field in (field for field in fields(value) if field.name not in unwritten):
            digest.update(field.name.encode())
            _add(digest, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            digest.update(str(key).encode())
            _add(digest, inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            _add(digest, inner)
    else:
        digest.update(repr(value).encode())
