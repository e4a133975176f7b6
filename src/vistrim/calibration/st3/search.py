"""The search: single cuts, then many schedules on few prompts, the best of them and their neighbors on more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vistrim.calibration.st3.budget import Budget
from vistrim.calibration.st3.candidates import (
    Form,
    Worth,
    closed_forms,
    cut_layers,
    default_form,
    neighbors,
    schedules,
    single_cuts,
)
from vistrim.calibration.st3.losses import Loss
from vistrim.errors import ParameterError
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.method import Method
from vistrim.methods.vta import VTA

RUNGS = 4
WIDTHS = (48, 16, 8, 4)
"""Schedules that each rung takes from the one before, or from the candidates."""
NEW = (0, 32, 16, 0)
"""Neighbors of the best schedules that each rung adds."""
PARENTS = 3
"""Schedules whose neighbors are added."""
INTERVAL = 8
"""Steps between evictions: each one has a fixed cost in every layer."""
NONE = VTA("constant")
ANNEALINGS = (
    NONE,
    VTA("cosine", 256, 0.5, INTERVAL),
    VTA("cosine", 128, 0.5, INTERVAL),
    VTA("cosine", 128, 0.25, INTERVAL),
    VTA("cosine", 64, 0.1, INTERVAL),
)
"""Annealings of ST³, ranked by the current token."""
OTHER_RANKINGS = (
    VTA("cosine", 128, 0.25, INTERVAL, "answer"),
    VTA("cosine", 64, 0.1, INTERVAL, "answer"),
    VTA("cosine", 64, 0.1, INTERVAL, "prompt", 0.5),
)
"""Annealings ranked by the answer so far or by the question: for the form "free"."""
FINALISTS = 2
"""Schedules that are tried with every annealing."""
TOLERANCE = 0.001
"""Loss that an annealing may add to save memory that the budget does not ask for."""


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes
    ----------
    cuts : Cuts
        Cuts and ranking, at the budget.
    annealing : VTA
        The annealing.
    reached : float
        Value of the budget's figure, at or below the budget.
    loss : Loss
        Loss on all prompts.
    default : Loss or None
        Loss of ST³ with its default start layer and stride at the same budget, without annealing. None if it cannot
        reach the budget.
    tried : int
        Number of methods tried.
    """

    cuts: Cuts
    annealing: VTA
    reached: float
    loss: Loss
    default: Loss | None
    tried: int


@dataclass
class Search:
    """A search for the schedule that loses least at a budget.

    Parameters
    ----------
    budget : Budget
        The budget.
    evaluate : callable
        Returns the loss of a method on the prompts of a rung, counted from 0.
    form : {"free", "st3"}
        Schedules to search.
    """

    budget: Budget
    evaluate: Callable[[Method, int], Loss]
    form: Form = "free"
    _tried: set[Method] = field(default_factory=set)

    @cached_property
    def depth(self) -> int:
        """Number of decoder layers."""
        return self.budget.facts.decoder.layers

    def run(self) -> Found:
        """Search.

        Raises
        ------
        ParameterError
            If no schedule reaches the budget.
        """
        default = self.budget.fit(default_form(self.depth), NONE)
        if self.form == "st3":
            best = self._halved(self._fitted(closed_forms(self.depth)), None)
        else:
            worth = Worth.of({cuts: self._lost(cuts, 0) for cuts in single_cuts(cut_layers(self.depth))})
            candidates = schedules(self.depth, self._mean_keep(), worth, WIDTHS[0])
            best = self._halved(self._fitted([default_form(self.depth), *candidates]), worth)
        cuts, annealing = self._annealed(best[:FINALISTS])
        method = self.budget.method(cuts, annealing)
        return Found(
            cuts=cuts,
            annealing=annealing,
            reached=self.budget.reached(method),
            loss=self._loss(method, RUNGS - 1),
            default=None if default is None else self._loss(self.budget.method(default, NONE), RUNGS - 1),
            tried=len(self._tried),
        )

    def _loss(self, method: Method, rung: int) -> Loss:
        self._tried.add(method)
        return self.evaluate(method, rung)

    def _lost(self, cuts: Cuts, rung: int) -> float:
        return self._loss(self.budget.method(cuts, NONE), rung).lost

    def _fitted(self, shapes: Iterable[Cuts]) -> list[Cuts]:
        found = (self.budget.fit(cuts, NONE) for cuts in shapes)
        return list(dict.fromkeys(cuts for cuts in found if cuts is not None))

    def _mean_keep(self) -> float:
        """Share of the visual tokens at the budget, of the schedule that cuts at every layer."""
        found = self.budget.fit(Cuts(tuple(range(1, self.depth)), (0.5,) * (self.depth - 1)), NONE)
        if found is None:
            raise self._out_of_reach()
        return found.mean_keep(self.depth)

    def _out_of_reach(self) -> ParameterError:
        nothing = self.budget.method(Cuts((1,), (0.0,)), NONE)
        least = self.budget.reached(nothing)
        return ParameterError(
            f"no schedule reaches {self.budget.kind}={self.budget.wanted:g} on these prompts: without visual tokens "
            f"from layer 1 on it is {least:.4g}; give a larger budget"
        )

    def _halved(self, candidates: Sequence[Cuts], worth: Worth | None) -> list[Cuts]:
        """Successive halving; the best first."""
        if not candidates:
            raise self._out_of_reach()
        best = list(candidates)
        for rung in range(RUNGS):
            if rung:
                best = best[: WIDTHS[rung]]
            if worth is not None:
                near = self._fitted(other for cuts in best[:PARENTS] for other in neighbors(cuts, self.depth))
                new = sorted((cuts for cuts in near if cuts not in best), key=worth.expected)
                best += new[: NEW[rung]]
            best.sort(key=lambda cuts, rung=rung: self._lost(cuts, rung))  # type: ignore[misc]
        return best

    def _annealed(self, finalists: Sequence[Cuts]) -> tuple[Cuts, VTA]:
        """Choose an annealing: for a budget of the cache the one that loses least, else the one that saves most."""
        last, tried = RUNGS - 1, []
        for annealing in _annealings(self.form):
            for shape in finalists if self.budget.kind == "kv" else finalists[:1]:
                cuts = shape if annealing is NONE else self.budget.fit(shape, annealing)
                if cuts is not None:
                    method = self.budget.method(cuts, annealing)
                    tried.append((self._loss(method, last).lost, self.budget.reached(method, "kv"), cuts, annealing))
        least = min(lost for lost, *_ in tried)
        if self.budget.kind == "kv":
            near = [one for one in tried if one[0] == least]
        else:
            near = [one for one in tried if one[0] <= least + TOLERANCE]
        _, _, cuts, annealing = min(near, key=lambda one: one[1])
        return cuts, annealing


def _annealings(form: Form) -> tuple[VTA, ...]:
    return ANNEALINGS if form == "st3" else ANNEALINGS + OTHER_RANKINGS


def prompts_needed(budget: Budget, form: Form, rung_prompts: Sequence[int]) -> int:
    """Largest number of prompts that a search processes, for progress bars.

    Parameters
    ----------
    budget : Budget
        The budget.
    form : {"free", "st3"}
        Schedules to search.
    rung_prompts : sequence of int
        Prompts of each rung, with those of the rungs before it.
    """
    depth = budget.facts.decoder.layers
    counts = [width + new for width, new in zip(WIDTHS, NEW, strict=True)]
    if form == "st3":
        counts = [len(closed_forms(depth)), *WIDTHS[1:]]
    else:
        counts[0] += 1 + len(single_cuts(cut_layers(depth)))
    finals = len(_annealings(form)) * (FINALISTS if budget.kind == "kv" else 1) + 2
    return sum(map(int.__mul__, counts, rung_prompts)) + finals * rung_prompts[-1]
