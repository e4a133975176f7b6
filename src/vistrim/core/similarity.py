"""How alike tokens are: cosines, and what is left of them without what all have in common."""

from torch import Tensor
from torch.nn.functional import normalize

from vistrim.core.precision import full_precision

ROUNDING = 1e-6
"""Range of mean cosines that are equal but for rounding."""


@full_precision
def cosines(features: Tensor) -> Tensor:
    """Compute the cosines of all pairs of rows; a row of zeros has 0 with every row.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``.

    Returns
    -------
    Tensor
        ``[n, n]`` float32.
    """
    unit = normalize(features.float(), dim=-1)
    return unit @ unit.T


def centered_cosines(features: Tensor) -> Tensor:
    """Compute the cosines of all pairs of rows after subtracting the mean row.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``.

    Returns
    -------
    Tensor
        ``[n, n]`` float32.
    """
    features = features.float()
    return cosines(features - features.mean(0))


@full_precision
def distinctiveness(features: Tensor) -> Tensor:
    r"""Compute how dissimilar each token is to all others, from 0 to 1.

    :math:`g_i = -\frac1{n-1} \sum_{j \ne i} \cos(x_i, x_j)`, scaled so that the least is 0 and the greatest 1.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``.

    Returns
    -------
    Tensor
        ``[n]`` float32; ones where all are alike.
    """
    unit = normalize(features.float(), dim=-1)
    # The sum of cosines is a product with the sum of the vectors. A constant summand changes nothing.
    return scaled_to_one(unit @ (unit.sum(0) / (1 - max(len(unit), 2))))


@full_precision
def likeness_to_words(features: Tensor, prompt: Tensor, words: Tensor) -> Tensor:
    """Compute the mean cosine of each token with some words.

    Parameters
    ----------
    features : Tensor
        ``[n, hidden]``.
    prompt : Tensor
        ``[tokens, hidden]``.
    words : Tensor
        ``[tokens]`` bool: which of them are the words.

    Returns
    -------
    Tensor
        ``[n]`` float32.
    """
    words = words.to(prompt.device)
    mean = (normalize(prompt.float(), dim=-1) * words[:, None]).sum(0) / words.sum().clamp(min=1)
    return normalize(features.float(), dim=-1) @ mean


def scaled_to_one(scores: Tensor, among: Tensor | None = None, least: float = 0.0) -> Tensor:
    """Scale mean cosines to [0, 1].

    Parameters
    ----------
    scores : Tensor
        ``[n]`` float32.
    among : Tensor, optional
        ``[m]`` float32: the scores whose minimum and maximum become 0 and 1; None: ``scores``.
    least : float
        Added to each score before dividing by the range, so that none is 0.

    Returns
    -------
    Tensor
        ``[n]`` float32; ones if all scores are equal.
    """
    low, high = (scores if among is None else among).aminmax()
    spread = high - low
    return ((scores - (low - least)) / spread).where(spread > ROUNDING, 1.0)
