"""Dominant and contextual tokens of VisionZip."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Contextual:
    """Dominant and contextual tokens of an image.

    Attributes
    ----------
    dominant : Tensor
        ``[d]`` long: tokens that stay unchanged, in raster order.
    targets : Tensor
        ``[c]`` long: tokens that others are merged into, in raster order.
    features : Tensor
        ``[c, width]`` float32: new features of the targets. Each is the feature of the target plus the mean feature of
        the tokens that join it.
    """

    dominant: Tensor
    targets: Tensor
    features: Tensor


def gather_up(scores: Tensor, metric: Tensor, features: Tensor, dominant: int, contextual: int) -> Contextual:
    """Keep the tokens with the highest scores, and merge the others into evenly spaced targets.

    Let R be the number of the other tokens. In raster order, every ``max(1, R // contextual)``-th of them is a target,
    from the first on. Each of the rest joins the target with the highest cosine of ``metric``. Ties go to the earlier
    target.

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float32. NaN for separators, which are not merged and are kept only if there are no other tokens left.
    metric : Tensor
        ``[n, head_dim]``: vectors by which tokens are assigned to targets.
    features : Tensor
        ``[n, width]``: features to merge.
    dominant, contextual : int
        Numbers of dominant and contextual tokens, in total at most n.

    Returns
    -------
    Contextual
        The tokens that stay, and the features of the contextual ones.
    """
    n, device = len(scores), scores.device
    separator = scores.isnan()
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    chosen = order[:dominant].sort().values
    is_chosen = torch.zeros(n, dtype=torch.bool, device=device).index_fill(0, chosen, True)
    # The other tokens in raster order, then the separators.
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
