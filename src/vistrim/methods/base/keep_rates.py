"""Methods with one keep rate per decoder layer, as fitted schedules have."""

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
"""Ranking rows: the last prompt token, or all text of the prompt after the last image."""


def check_rows(rows: str) -> None:
    """Check that a parameter names a choice of ranking rows.

    Parameters
    ----------
    rows : str
        Value of the parameter ``rows``.

    Raises
    ------
    ValueError
        If it is neither "last" nor "prompt".
    """
    if rows not in get_args(Rows):
        raise ValueError(f"rows={rows!r}: must be {' or '.join(get_args(Rows))}")


@dataclass(frozen=True)
class KeepRates(AttentionSchedule):
    """Keep a given share of the visual tokens in each layer.

    A cut before layer ``l`` takes place where ``rates[l] < rates[l - 1]``. It keeps the ``ceil(rates[l] * N)`` visual
    tokens that receive the most attention at layer ``l - 1``, where ``N`` is the number of visual tokens that entered
    the decoder. The attention is the mean over heads and ranking rows. Remaining tokens keep their positions.

    Parameters
    ----------
    rates : tuple of float
        One share in [0, 1] per decoder layer. The first is 1, and none exceeds the one before. A rate of 0 keeps no
        token, any other rate at least one.
    rows : {"last", "prompt"}
        Ranking rows: the last prompt token, or all text of the prompt after the last image.

    Raises
    ------
    ValueError
        If the rates or ``rows`` are out of range.
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
        """Scale the rates so that the smallest one above 0 equals a share.

        All rates after layer 0 are multiplied by one factor and limited to 1.

        Parameters
        ----------
        share : float
            Share of the visual tokens to keep, in (0, 1].
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        Method
            The method with the scaled rates.
        """
        factor = share / min((rate for rate in self.rates if rate), default=1.0)
        return replace(self, rates=(1.0, *(min(1.0, rate * factor) for rate in self.rates[1:])))

    def fitted(self, model: ModelFacts) -> Method:
        """Check that there is one rate per decoder layer.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        Method
            The method itself.

        Raises
        ------
        ValueError
            If the number of rates differs from the number of decoder layers.
        """
        if len(self.rates) != model.decoder.layers:
            raise ValueError(
                f"{len(self.rates)} rates, but the model has {model.decoder.layers} decoder layers: give one for each"
            )
        return self

    def tokens_kept(self, n: int, layer: int, step: int, depth: int) -> int:
        """Compute the number of visual tokens to keep.

        Parameters
        ----------
        n : int
            Visual tokens of the sample that entered the decoder.
        layer : int
            Decoder layer, 0-based.
        step : int
            Not used.
        depth : int
            Not used.

        Returns
        -------
        int
            ``ceil(rates[layer] * n)``.
        """
        return share_kept(self.rates[layer], n)

    def query_rows(self, embeddings: Tensor, visual: Tensor, prompt: Tensor) -> Tensor | None:
        """Choose the ranking rows.

        Parameters
        ----------
        embeddings : Tensor
            ``[batch, tokens, hidden]``: input of decoder layer 0.
        visual : Tensor
            ``[batch, tokens]`` bool, True for visual tokens.
        prompt : Tensor
            ``[batch, tokens]`` bool. False for padding and for tokens after the prompt (drafts, answers).

        Returns
        -------
        Tensor or None
            ``[batch, tokens]`` bool, True for the ranking rows. None: the last prompt token.
        """
        return None if self.rows == "last" else text_behind_images(visual, prompt)
