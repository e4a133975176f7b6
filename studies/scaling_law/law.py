r"""The inference-time scaling law of visual tokens against parameters: how many of each a FLOP budget is best spent on.

.. math:: Err(N, T) = A \, N^{-\alpha} \, T^{-\beta} + D

with N the language model's parameters in billions and T the visual tokens of an image. These numbers describe the
models of one paper and nothing else: Qwen1.5 language models of 0.5 to 7 billion parameters, trained by the LLaVA-Next
recipe with TokenPacker's compression to 1 to 576 tokens, on the mean of nine visual-reasoning benchmarks. They are no
measurement of the models that vistrim ships or loads, and trimming without training is not what they were measured on.

Source: arXiv 2411.03312 (ICLR 2025) and github.com/locuslab/llava-token-compression at bdedebd (``values.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

PARAMETERS = (0.5, 1.8, 4.0, 7.0)
"""Billions, the rows of `ACCURACY`."""
VISUAL_TOKENS = (1, 4, 16, 36, 64, 144, 576)
"""The columns of `ACCURACY`."""
ACCURACY = (
    (0.3855, 0.3917, 0.4078, 0.4133, 0.4151, 0.4244, 0.4320),
    (0.4333, 0.4519, 0.4528, 0.4597, 0.4609, 0.4758, 0.4808),
    (0.4630, 0.4692, 0.4858, 0.4916, 0.5023, 0.5092, 0.5185),
    (0.4810, 0.4971, 0.5050, 0.5141, 0.5172, 0.5238, 0.5354),
)
"""Mean accuracy over the nine benchmarks, as the authors' code has it."""
POINTS = tuple(
    (parameters, tokens, 1 - accuracy)
    for parameters, row in zip(PARAMETERS, ACCURACY, strict=True)
    for tokens, accuracy in zip(VISUAL_TOKENS, row, strict=True)
)
"""Parameters, visual tokens and error of each measurement."""


@dataclass(frozen=True)
class Exponents:
    r"""How fast the error falls with parameters and with visual tokens.

    Attributes
    ----------
    alpha, beta : float
        :math:`\alpha` of the parameters and :math:`\beta` of the visual tokens.
    """

    alpha: float
    beta: float

    @property
    def ratio(self) -> float:
        r""":math:`\alpha / \beta`: how much more a factor in parameters is worth than one in visual tokens."""
        return self.alpha / self.beta

    def reducible(self, parameters: float, visual_tokens: float) -> float:
        r""":math:`N^{-\alpha} T^{-\beta}`: the error but for a factor and a constant; smaller is better."""
        return float(parameters**-self.alpha * visual_tokens**-self.beta)


@dataclass(frozen=True)
class ScalingLaw(Exponents):
    """The whole law.

    Attributes
    ----------
    amplitude : float
        A.
    floor : float
        D, the error that neither parameters nor visual tokens reduce.
    """

    amplitude: float
    floor: float = 0.0

    def error(self, parameters: float, visual_tokens: float) -> float:
        """Error, 1 minus mean accuracy, with so many billion parameters and visual tokens."""
        return self.amplitude * self.reducible(parameters, visual_tokens) + self.floor


PUBLISHED = Exponents(alpha=0.077, beta=0.015)
"""The paper's exponents (legend in its code). That code searches a shuffled grid and stops after a fifth of it, so that
what it finds depends on the shuffle."""
GRID_REFIT = ScalingLaw(alpha=0.0747, beta=0.0162, amplitude=0.557, floor=0.0333)
"""The optimum of the authors' whole grid on their own data; see `studies.scaling_law.fit.fit_grid`."""
REFIT = ScalingLaw(alpha=0.0709, beta=0.0151, amplitude=0.591)
"""Least squares on the same data with D = 0; see `studies.scaling_law.fit.fit`. A and D cannot be told apart on
these data: with D from 0 to 0.3 the fit is about as good, alpha moves from 0.07 to 0.16 and beta from 0.015 to 0.034.
The ratio of about 4.7 is what they support."""
OCR_PUBLISHED = Exponents(alpha=0.029, beta=0.048)
"""As reported for DocVQA and TextVQA, where visual tokens are worth more than parameters."""
OCR_REFIT = ScalingLaw(alpha=0.028, beta=0.039, amplitude=0.917)
"""Least squares on the authors' data for these two with D = 0. At 576 tokens their largest model has the error of the
next smaller one, probably by mistake."""
LAWS = {
    "published": PUBLISHED,
    "refit": REFIT,
    "grid-refit": GRID_REFIT,
    "ocr-published": OCR_PUBLISHED,
    "ocr-refit": OCR_REFIT,
}


def flops(parameters: float, text_tokens: float, visual_tokens: float) -> float:
    """FLOPs of a prefill as the paper counts them, in billions: ``2 N (Q + V)``, without vision tower and attention."""
    return 2 * parameters * (text_tokens + visual_tokens)


def best_visual_tokens(law: Exponents, text_tokens: float, most: float = 576) -> float:
    r"""Visual tokens that are best for any FLOP budget, where the size of the language model can be chosen freely.

    At fixed :math:`N (Q + V)` the error is smallest at :math:`V^* = Q \beta / (\alpha - \beta)` if
    :math:`\alpha > \beta`, and otherwise the smaller the more visual tokens there are.

    Parameters
    ----------
    law : Exponents
        A law.
    text_tokens : float
        Q, from 0 on.
    most : float
        Visual tokens that the vision tower has.

    Returns
    -------
    float
        Between 1 and ``most``. "One token is enough" is the corner for short texts, and a consequence of the law's form
        whenever :math:`\alpha > \beta`.
    """
    if law.alpha <= law.beta:
        return most
    return min(most, max(1.0, text_tokens * law.beta / (law.alpha - law.beta)))


@dataclass(frozen=True)
class Choice:
    """A size of the language model, and visual tokens, within a FLOP budget.

    Attributes
    ----------
    parameters : float
        Billions.
    visual_tokens : int
        As many as the budget allows.
    flops : float
        Billions; see `flops`.
    reducible : float
        See `Exponents.reducible`; smaller is better.
    """

    parameters: float
    visual_tokens: int
    flops: float
    reducible: float


def choices(
    law: Exponents, text_tokens: int, budget: float, sizes: Sequence[float] = PARAMETERS, most: int = 576
) -> list[Choice]:
    """What a FLOP budget buys with language models of given sizes, best first.

    Parameters
    ----------
    law : Exponents
        A law.
    text_tokens : int
        Tokens of text in the prompt, from 0 on.
    budget : float
        FLOPs of the prefill in billions.
    sizes : sequence of float
        Parameters in billions; those of the paper's models by default.
    most : int
        Visual tokens that the vision tower has.

    Raises
    ------
    ValueError
        If not even the smallest model can afford one visual token.
    """
    found = []
    for parameters in sizes:
        visual = min(most, int(budget / (2 * parameters) - text_tokens + 1e-9))
        if visual >= 1:
            cost = flops(parameters, text_tokens, visual)
            found.append(Choice(parameters, visual, cost, law.reducible(parameters, visual)))
    if not found:
        least = flops(min(sizes), text_tokens, 1)
        raise ValueError(
            f"a budget of {budget:g} billion FLOPs is too small for {text_tokens} text tokens and one visual token: "
            f"the smallest model, {min(sizes):g} billion parameters, takes {least:g}"
        )
    return sorted(found, key=lambda choice: choice.reducible)
