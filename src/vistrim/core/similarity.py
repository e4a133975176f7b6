"""Similarity of tokens: cosines, with or without subtraction of the mean token."""

from torch import Tensor
from torch.nn.functional import normalize, pad

from vistrim.core.precision import full_precision

ROWS = 16
"""Numbers of rows whose product is computed alike everywhere are multiples of this."""
ROUNDING = 1e-6
"""Largest range of mean cosines that differ only by rounding errors."""


@full_precision
def cosines(features: Tensor) -> Tensor:
    """Compute the cosines of all pairs of rows. The cosines of a row of zeros are 0.

    The matrix is symmetric, and equal rows have equal cosines, to the last bit.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``: one row per token.

    Returns
    -------
    Tensor
        ``[n, n]`` float32.
    """
    unit = normalize(features.detach().float(), dim=-1)
    n = len(unit)
    # Small and odd products have kernels of their own for the last rows, or altogether, which round differently.
    unit = pad(unit, (0, 0, 0, -n % ROWS))
    return (unit @ unit.T)[:n, :n]


@full_precision
def cosines_to(features: Tensor, others: Tensor) -> Tensor:
    """Compute the cosines of all rows with some of them.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``: one row per token.
    others : Tensor
        ``[m]`` long: indices of the rows to compare with.

    Returns
    -------
    Tensor
        ``[n, m]`` float32.
    """
    unit = normalize(features.float(), dim=-1)
    return unit @ unit[others].T


def centered_cosines(features: Tensor) -> Tensor:
    """Compute the cosines of all pairs of rows after subtracting the mean row.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``: one row per token.

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

    The distinctiveness is :math:`g_i = -\frac1{n-1} \sum_{j \ne i} \cos(x_i, x_j)`, scaled so that the smallest is 0
    and the largest is 1.

    Parameters
    ----------
    features : Tensor
        ``[n, width]``: one row per token.

    Returns
    -------
    Tensor
        ``[n]`` float32, in [0, 1]. All ones if the tokens do not differ in it.
    """
    unit = normalize(features.float(), dim=-1)
    # The sum of cosines is a product with the sum of the vectors. It includes j = i, but the scaling removes constants.
    return scaled_to_one(unit @ (unit.sum(0) / (1 - max(len(unit), 2))))


@full_precision
def likeness_to_words(features: Tensor, prompt: Tensor, words: Tensor) -> Tensor:
    """Compute the mean cosine of each visual token with the embeddings of the given words.

    Parameters
    ----------
    features : Tensor
        ``[n, hidden]``: embeddings of the visual tokens.
    prompt : Tensor
        ``[tokens, hidden]``: embeddings of the whole prompt.
    words : Tensor
        ``[tokens]`` bool: the tokens of the prompt to compare with.

    Returns
    -------
    Tensor
        ``[n]`` float32. Zeros if there are no words.
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
        ``[m]`` float32: the scores whose minimum and maximum become 0 and 1. None: ``scores``.
    least : float
        Value that is added to each score before the division by the range, so that none becomes 0.

    Returns
    -------
    Tensor
        ``[n]`` float32. All ones if the scores that set the range are equal.
    """
    low, high = (scores if among is None else among).aminmax()
    spread = high - low
    return ((scores - (low - least)) / spread).where(spread > ROUNDING, 1.0)
