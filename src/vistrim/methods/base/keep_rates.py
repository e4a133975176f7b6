"""A share of the visual tokens for each layer: what searched schedules come down to."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor

from vistrim.core.model_facts import ModelFacts
from vistrim.core.query_text import text_behind_images
from vistrim.core.schedules import share_kept
from vistrim.methods.base.attention_schedule import AttentionSchedule
from vistrim.methods.base.method import Method

Rows = Literal["last", "prompt"]
"""Tokens whose attention ranks: the last prompt token, or all text of the prompt behind the last image."""


def check_rows(rows: str) -> None:
    """Refuse anything but a way to choose the tokens that rank."""
    if rows not in get_args(Rows):
        raise ValueError(f"rows={rows!r}: must be {' or '.join(get_args(Rows))}")


@dataclass(frozen=True)
class KeepRates(AttentionSchedule):
    r"""Keep, before each layer, the share of the visual tokens that a schedule names for it.

    Before layer ``l``, where ``rates[l] < rates[l - 1]``, the ``ceil(rates[l] * N)`` visual tokens stay that receive
    most attention at layer ``l - 1`` (mean over heads and over the rows that rank), with their original positions.

    Parameters
    ----------
    rates : tuple of float
        One for each layer, from 1 for layer 0 on never rising; 0 keeps none, any other at least one token.
    rows : {"last", "prompt"}
        What ranks: the last prompt token, or all text of the prompt behind the last image.

    Raises
    ------
    ValueError
        If a rate is out of range.
    """

    name = "keep-rates"
    summary = "Keeps a given share of the visual tokens in each layer"
    stages = ("prefill",)
    kv_cache = "smaller from cut to cut"
    source = "arXiv 2412.00556"

    budget_parameter = "rates"

    rates: tuple[float, ...]
    rows: Rows = "last"

    def __post_init__(self) -> None:
        if not self.rates or self.rates[0] != 1:
            raise ValueError("rates must begin with 1: nothing has ranked the visual tokens before layer 0")
        if not all(0 <= rate <= 1 for rate in self.rates):
            raise ValueError("rates must be shares of the visual tokens between 0 and 1")
        if any(a < b for a, b in pairwise(self.rates)):
            raise ValueError("rates must not rise: a token that is gone does not come back")
        check_rows(self.rows)

    def with_share(self, share: float, model: ModelFacts) -> Method:
        """Multiply the rates behind layer 0 by one factor, with 1 as the limit of each."""
        factor = share / min((rate for rate in self.rates if rate), default=1.0)
        return replace(self, rates=(1.0, *(min(1.0, rate * factor) for rate in self.rates[1:])))

    def fitted(self, model: ModelFacts) -> Method:
        """Refuse rates for another depth."""
        if len(self.rates) != model.decoder.layers:
            raise ValueError(
                f"{len(self.rates)} rates, but the model has {model.decoder.layers} decoder layers: give one for each"
            )
        return self

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """``ceil(rates[layer] * n)``."""
        return share_kept(self.rates[layer], n)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """The rows that rank."""
        return None if self.rows == "last" else text_behind_images(visual, prompt)
