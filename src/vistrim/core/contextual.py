"""VisionZip's tokens: some that stay as they are, and some that gather up others."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Contextual:
    """Tokens of an image that stay, and what the contextual ones become.

    Attributes
    ----------
    dominant : Tensor
        ``[d]`` long, in raster order.
    targets : Tensor
        ``[c]`` long, in raster order: where others are gathered up.
    features : Tensor
        ``[c, width]`` float32: a target's own feature plus the mean of those that join it.
    """

    dominant: Tensor
    targets: Tensor
    features: Tensor


def gather_up(scores: Tensor, metric: Tensor, features: Tensor, dominant: int, contextual: int) -> Contextual:
    """Keep the tokens with the highest scores, and gather up the others in evenly spaced ones of them.

    Of the others in raster order, R of them, every ``max(1, R // contextual)``-th from the first on is a target. Each
    further one joins the target with the highest cosine of metrics (the first, of equals).

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float32; NaN for separators, which are neither kept nor gathered up as long as there are others.
    metric : Tensor
        ``[n, head_dim]``.
    features : Tensor
        ``[n, width]``.
    dominant, contextual : int
        Numbers of tokens, together at most n.

    Returns
    -------
    Contextual
        The tokens that stay.
    """
    n, device = len(scores), scores.device
    separator = scores.isnan()
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    chosen = order[:dominant].sort().values
    is_chosen = torch.zeros(n, dtype=torch.bool, device=device).index_fill(0, chosen, True)
    # The others in raster order, and behind them separators.
    others = (separator.long() + 2 * is_chosen).argsort(stable=True)
    free = (~is_chosen & ~separator).sum()
    every = (free // max(contextual, 1)).clamp(min=1)
    targets = others[torch.arange(contextual, device=device) * every]
    joins = (~is_chosen & ~separator).index_fill(0, targets, False)
    metric = normalize(metric.float().nan_to_num(), dim=-1)
    features = features.float().nan_to_num()
    if contextual == 0:
        return Contextual(chosen, targets, features[:0])
    nearest = (metric @ metric[targets].T).argmax(1)
    members = ((nearest[:, None] == torch.arange(contextual, device=device)) & joins[:, None]).float()
    mean = members.T @ features / members.sum(0).clamp(min=1)[:, None]
    return Contextual(chosen, targets, features[targets] + mean)
