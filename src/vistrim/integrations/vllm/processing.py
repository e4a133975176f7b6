"""What all model classes share: the method, the number of placeholders, and the identity of an image in caches."""

from __future__ import annotations

import hashlib
from typing import Any

from vistrim._version import __version__
from vistrim.integrations.vllm.settings import read_method


class TrimmedInfo:
    """Mixin of a ``ProcessingInfo`` of vLLM: the method, checked before anything is loaded.

    Raises
    ------
    UnsupportedGenerationError
        If the model's config names no method, or one that cannot work.
    """

    renumbers = True
    """Whether the remaining tokens get consecutive positions."""

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)  # type: ignore[call-arg]
        self.method = read_method(ctx.get_hf_config(), self.renumbers)
        self.check()
        self.digest = hashlib.sha256(f"{__version__} {self.method}".encode()).hexdigest()[:16]

    def check(self) -> None:
        """Refuse what is known to fail for this model and method. Subclasses override it."""


class TrimmedProcessor:
    """Mixin of a multimodal processor of vLLM: the identity of an image in all caches contains the method."""

    info: Any

    def _get_mm_hashes(self, inputs: Any) -> dict[str, list[str]]:
        hashes = super()._get_mm_hashes(inputs)  # type: ignore[misc]
        return {kind: [f"{found}-{self.info.digest}" for found in of_kind] for kind, of_kind in hashes.items()}
