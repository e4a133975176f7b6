"""Cuts to try, as pure functions: single cuts that show what rankings are worth, schedules, and their neighbors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

from vistrim.core.schedules import scaled_to_depth
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.keep_rates import Rows
from vistrim.methods.fitted_st3 import LEAST_CUTS
from vistrim.methods.pvtp import START_LAYER, STRIDE

Form = Literal["free", "st3"]
"""Schedules to search: "free" for any cuts and rankings, "st3" for a start layer, a stride and a share per cut."""

Ranking = tuple[Rows, bool, float]
"""Values of ``rows``, ``averaged`` and ``heads`` of `Cuts`."""

ROWS: tuple[Rows, ...] = ("last", "prompt")
RANKINGS: tuple[Ranking, ...] = tuple(product(ROWS, (False, True), (1.0, 0.25)))
PROBED_SHARE = 0.25
"""Share of the visual tokens that single cuts keep, as in `vistrim.analyze`."""
MOST_LAYERS = 12
"""Largest number of layers at which cuts are tried first; neighbors reach the others."""
MOST_CUTS = 3
NEARLY_ALL = 0.98
PER_SHAPE = 2
"""Rankings that are tried with the same layers."""


def cut_layers(depth: int) -> tuple[int, ...]:
    """Layers before which cuts are tried: all from 1 on, or `MOST_LAYERS` of them, evenly spaced."""
    several = min(depth - 1, MOST_LAYERS)
    return tuple(dict.fromkeys(1 + round(i * (depth - 2) / max(1, several - 1)) for i in range(several)))


def ranking_of(cuts: Cuts) -> Ranking:
    """What ranks."""
    return cuts.rows, cuts.averaged, cuts.heads


def single_cuts(layers: Sequence[int]) -> list[Cuts]:
    """One cut before each layer, by each ranking, and one that keeps nothing."""
    ranked = [Cuts((layer,), (PROBED_SHARE,), *ranking) for layer in layers for ranking in RANKINGS]
    return ranked + [Cuts((layer,), (0.0,)) for layer in layers]


@dataclass(frozen=True)
class Worth:
    """What is lost by single cuts.

    Attributes
    ----------
    ranked : mapping
        By layer and ranking, with `PROBED_SHARE` of the visual tokens kept.
    withdrawn : mapping
        By layer, with none kept.
    """

    ranked: Mapping[tuple[int, Ranking], float]
    withdrawn: Mapping[int, float]

    @classmethod
    def of(cls, losses: Mapping[Cuts, float]) -> "Worth":
        """Sort the losses of `single_cuts`."""
        ranked = {(cuts.layers[0], ranking_of(cuts)): loss for cuts, loss in losses.items() if cuts.shares[0]}
        return cls(ranked, {cuts.layers[0]: loss for cuts, loss in losses.items() if not cuts.shares[0]})

    def expected(self, cuts: Cuts) -> float:
        """Guess what cuts lose; only the order matters.

        A cut counts with the square of the share that it drops, because the tokens that rank lowest matter least.
        """
        total, before = 0.0, 1.0
        for layer, share in zip(cuts.layers, cuts.shares, strict=True):
            if share == 0:
                total += before * self.withdrawn[self._near(layer)]
            else:
                loss = self.ranked[self._near(layer), ranking_of(cuts)]
                total += loss * ((before - share) / (1 - PROBED_SHARE)) ** 2
            before = share
        return total

    def _near(self, layer: int) -> int:
        return min(self.withdrawn, key=lambda probed: abs(probed - layer))


def closed_form(start: int, stride: int, depth: int) -> Cuts:
    """Cuts of ST³, at a share per cut that is still to be fitted."""
    layers = tuple(range(start, depth, stride))
    return Cuts(layers, tuple(0.5 ** (i + 1) for i in range(len(layers))))


def default_form(depth: int) -> Cuts:
    """Cuts of ST³ with its defaults."""
    return closed_form(scaled_to_depth(START_LAYER, depth), scaled_to_depth(STRIDE, depth), depth)


def closed_forms(depth: int) -> list[Cuts]:
    """All cuts of ST³ with at least `LEAST_CUTS` cuts."""
    layers = range(1, depth)
    found = (closed_form(start, stride, depth) for start in layers for stride in layers)
    return list(dict.fromkeys(cuts for cuts in found if len(cuts.layers) >= LEAST_CUTS))


def _shapes(layers: Sequence[int], depth: int, mean_keep: float) -> Iterator[Cuts]:
    # Each cut drops the same share of what is left; the last one may drop everything.
    for number in range(1, MOST_CUTS + 1):
        for chosen in combinations(layers, number):
            shares = tuple(NEARLY_ALL ** (i + 1) for i in range(number))
            endings = [((), ()), *(((layer,), (0.0,)) for layer in layers if layer > chosen[-1])]
            for end, nothing in endings:
                if chosen[0] / depth < mean_keep < (end[0] / depth if end else 1):
                    yield Cuts(chosen + end, shares + nothing).with_mean_keep(mean_keep, depth)


def schedules(depth: int, mean_keep: float, worth: Worth, count: int) -> list[Cuts]:
    """The most promising cuts with a given mean share of the visual tokens.

    Parameters
    ----------
    depth : int
        Number of decoder layers.
    mean_keep : float
        Share of the visual tokens, mean over the layers.
    worth : Worth
        What single cuts lose.
    count : int
        Number of cuts to return, at most.
    """
    found = [
        replace(shape, rows=rows, averaged=averaged, heads=heads)
        for shape in _shapes(cut_layers(depth), depth, mean_keep)
        for rows, averaged, heads in RANKINGS
    ]
    chosen: list[Cuts] = []
    seen: dict[object, int] = {}
    for cuts in sorted(found, key=worth.expected):
        keys = (cuts.layers, PER_SHAPE), (ranking_of(cuts), max(PER_SHAPE, count // 3))
        if len(chosen) < count and all(seen.get(key, 0) < most for key, most in keys):
            chosen.append(cuts)
            for key, _ in keys:
                seen[key] = seen.get(key, 0) + 1
    return chosen


def neighbors(cuts: Cuts, depth: int) -> list[Cuts]:
    """Cuts that differ in one layer, one share, one cut or one choice of the ranking; shares are still to be fitted."""
    layers, shares = cuts.layers, cuts.shares
    found = [replace(cuts, rows=rows) for rows in ROWS]
    found += [replace(cuts, averaged=not cuts.averaged), replace(cuts, heads=0.25 if cuts.heads == 1 else 1.0)]
    for i, layer in enumerate(layers):
        before, after = (layers[i - 1] if i else 0), (layers[i + 1] if i + 1 < len(layers) else depth)
        found += [
            replace(cuts, layers=(*layers[:i], moved, *layers[i + 1 :]))
            for moved in (layer - 1, layer + 1)
            if before < moved < after
        ]
        most, least = (shares[i - 1] if i else 1.0), (shares[i + 1] if i + 1 < len(shares) else 0.0)
        found += [
            replace(cuts, shares=(*shares[:i], other, *shares[i + 1 :]))
            for other in ((shares[i] + most) / 2, (shares[i] + least) / 2)
            if shares[i]
        ]
        if len(layers) > 1:
            found.append(replace(cuts, layers=layers[:i] + layers[i + 1 :], shares=shares[:i] + shares[i + 1 :]))
    if shares[-1] and layers[-1] + 1 < depth:
        found.append(replace(cuts, layers=(*layers, (layers[-1] + depth) // 2), shares=(*shares, 0.0)))
    return [other for other in dict.fromkeys(found) if other != cuts]
