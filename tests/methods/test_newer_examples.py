"""The newer selectors: worked examples of the specification, invariants, and the cost of a choice."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.closeness import close
from tests.methods import newer_rules
from vistrim import SCOPE, CDPruner, DivPrune, FasterVLM, HoloV, VisionZip, VisPruner, VScan
from vistrim.core.contextual import gather_up
from vistrim.core.greedy import determinantal, farthest_first, most_covering
from vistrim.core.groups import ranks, runs, shared_out, windows
from vistrim.core.pivots import least_like, strongest
from vistrim.core.similarity import centered_cosines, cosines, distinctiveness, scaled_to_one
from vistrim.methods.base.per_image import ImageTokens
from vistrim.methods.holov import best_of_each
from vistrim.methods.vscan import LocalAndGlobal

ANGLES = torch.tensor([0.0, 10, 20, 90, 100, 180]) * math.pi / 180
TOY = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)


def image(n=32, seed=0, grid=None, **changes):
    """An image of random tokens."""
    g = torch.Generator().manual_seed(seed)
    return ImageTokens(
        0,
        n,
        grid,
        attention={3: torch.rand(n, generator=g).softmax(0), 0: torch.rand(n, generator=g).softmax(0)},
        features=torch.randn(n, 8, generator=g),
        embeddings=torch.randn(n, 12, generator=g),
        **changes,
    )


def test_divprune_and_cen_prune():
    distance = 1 - cosines(TOY)
    for count, kept in enumerate(([5], [5, 0], [5, 0, 3], [5, 0, 3, 2]), 1):
        assert farthest_first(distance, count).tolist() == kept
    assert close(distinctiveness(TOY), torch.tensor([0.1763, 0.0805, 0, 0, 0.0805, 1]), 1e-4)
    centered = 1 - centered_cosines(TOY)
    assert farthest_first(centered, 4, distinctiveness(TOY)).tolist() == [5, 0, 4, 1]
    assert farthest_first(centered, 3).tolist() == [5, 2, 3]
    # Copies of a token are last, and tokens that are all alike do no harm.
    assert set(farthest_first(1 - cosines(torch.cat([TOY, TOY[:3]])), 6).tolist()) == set(range(6))
    same = torch.ones(4, 3)
    assert sorted(farthest_first(1 - centered_cosines(same), 4, distinctiveness(same)).tolist()) == [0, 1, 2, 3]


def test_scope():
    saliency = torch.tensor([0.1, 0.2, 0.1, 0.1, 0.3, 0.2])
    assert most_covering(cosines(TOY), saliency, 4).tolist() == [4, 1, 5, 0]
    assert most_covering(cosines(TOY), torch.ones(6), 4).tolist() == [2, 4, 5, 1]
    assert most_covering(torch.ones(6, 6), saliency, 6).tolist() == [4, 1, 5, 0, 2, 3]


def test_cdpruner():
    rows = torch.tensor([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.3], [0, 0, 1], [0.5, 0.5, 0.5]])
    like = -torch.tensor([0.30, 0.10, 0.20, 0.25, 0.15, 0.22])
    quality = scaled_to_one(like, least=1e-6)
    assert close(quality, torch.tensor([0, 1, 0.5, 0.25, 0.75, 0.4]), 1e-4)
    kernel = cosines(rows).fill_diagonal_(1)
    assert determinantal(quality[:, None] * kernel * quality, 3).tolist() == [1, 4, 2]
    # Without relevance all are equally good at first, and the earlier one is taken.
    assert determinantal(kernel, 3).tolist() == newer_rules.largest_volume(kernel.double(), 3) == [0, 2, 4]
    # Of rank 3: the others follow, and nothing is NaN.
    assert sorted(determinantal(kernel, 6).tolist()) == list(range(6))
    assert scaled_to_one(torch.full((4,), 0.3)).tolist() == [1] * 4


def test_visionzip():
    scores = torch.tensor([0.05, 0.30, 0.10, 0.20, 0.05, 0.10, 0.15, 0.05])
    keys = torch.tensor([[1, 0], [0, 0], [0.9, 0.1], [0, 0], [0, 1], [0.1, 1], [1, 0.2], [0.2, 0.9]])
    found = gather_up(scores, keys, torch.arange(8.0)[:, None], dominant=2, contextual=2)
    assert (found.dominant.tolist(), found.targets.tolist()) == ([1, 3], [0, 5])
    assert found.features[:, 0].tolist() == [4, 10.5]
    doubled = gather_up(scores, keys, 2 * torch.arange(8.0)[:, None], dominant=2, contextual=2)
    assert torch.equal(doubled.features, 2 * found.features)
    # Separators are neither targets nor members as long as there are others.
    padded = torch.cat([scores, torch.full((2,), torch.nan)])
    again = gather_up(padded, torch.cat([keys, torch.full((2, 2), torch.nan)]), torch.arange(10.0)[:, None], 2, 2)
    assert torch.equal(again.features, found.features)


def test_visionzip_without_contextual_tokens_is_fastervlm():
    tokens = image(class_state=None, keys={3: torch.randn(32, 4)})
    tokens = ImageTokens(**(vars(tokens) | {"attention": {3: tokens.attention[3]}}))
    kept = VisionZip(9, 0).choose(tokens).keep.tolist()
    assert set(kept) == set(FasterVLM(9).choose(tokens).keep.tolist())


def test_holov():
    scores = torch.tensor([0.02, 0.30, 0.05, 0.03, 0.10, 0.20, 0.20, 0.10])
    assert best_of_each(scores, 2, 4).tolist() == [1, 4, 5, 6]
    assert best_of_each(torch.tensor([0.24, 0.24, 0.24, 0.23, 0.02, 0.01, 0.01, 0.01]), 2, 6).tolist() == [*range(6)]
    assert best_of_each(scores, 1, 3).tolist() == sorted(FasterVLM(3).choose(ImageTokens(0, 8, None, {0: scores})).keep)
    x, attention = torch.randn(37, 5), torch.rand(37)
    for count in (5, 20, 33):
        assert shared_out(torch.rand(6), torch.full((6,), 7), count).sum() == count
        # The authors' variance term changes nothing.
        rules = [set(newer_rules.by_crops(x, attention.tolist(), 5, count, alpha)) for alpha in (0.0, 0.09)]
        assert rules[0] == rules[1] == set(best_of_each(attention, 5, count).tolist())


def test_dart():
    keys = torch.tensor([3.0, 1, 1, 2, 1, 1, 5])[None, :, None]
    states = torch.cat([TOY, TOY[3:4]])
    visual = torch.arange(7) < 6
    pivots = strongest(keys, visual, 1)
    assert pivots.tolist() == [0]
    text = strongest(keys, ~visual, 1)
    free = visual.index_fill(0, pivots, False)
    taken = least_like(states, torch.cat([pivots, text]), free, each=2)
    assert taken.nonzero()[:, 0].tolist() == [1, 2, 4, 5]
    # Fewer candidates than pivots: the strongest stands for the others.
    assert strongest(keys, ~visual, 3).tolist() == [6, 6, 6]


def test_vscan_keeps_as_many_of_each_window_and_as_many_as_asked_for():
    tokens = image(144, grid=(12, 12))
    window = windows(12, 12, 4, torch.device("cpu"))
    chosen = ranks(tokens.attention[3], window, 16) < 2
    assert torch.zeros(16).scatter_add(0, window, chosen.float()).tolist() == [2] * 16
    for keep in (2, 31, 64, 100, 143):
        choice = LocalAndGlobal(keep, "renumber").choose(tokens)
        assert len(set(choice.keep.tolist())) == keep
    with pytest.raises(ValueError, match="vscan needs a grid"):
        LocalAndGlobal(8, "renumber").choose(image(30, grid=(12, 12)))


def test_runs_are_equally_long_and_separators_do_not_count():
    counted = torch.tensor([True] * 4 + [False] + [True] * 3)
    assert runs(counted, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("wrong", [1, 0, True, 1.5, 0.0, -3])
def test_the_number_one_and_other_ambiguous_budgets_are_refused(wrong):
    for method in (DivPrune, SCOPE, HoloV, CDPruner, VScan):
        with pytest.raises(ValueError, match="keep="):
            method(keep=wrong)
    with pytest.raises(ValueError, match=r"1\.0 for all"):
        DivPrune(keep=1)


class Kernels(TorchDispatchMode):
    """Counts operations that compute something, and refuses those that wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero", "index.Tensor_bool", "masked_select", "bincount", "unique")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.WAITING), func
        if "aten.index" in str(func) and len(args) > 1 and isinstance(args[1], (list, tuple)):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), func
        returns = func._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        self.count += not is_view and "empty" not in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "method",
    [
        DivPrune(40),
        DivPrune(40, center=True),
        SCOPE(40),
        HoloV(40),
        CDPruner(40),
        CDPruner(40, center=True),
        VisionZip(30, 10),
        VisPruner(40),
        VScan(40).parts[0],
    ],
)
def test_a_choice_costs_few_kernels_and_waits_for_nothing(method):
    tokens = image(
        144, grid=(12, 12), keys={3: torch.randn(144, 4)}, project=torch.nn.Linear(8, 12).requires_grad_(False)
    )
    prompt = {"whole_image": tokens.embeddings, "prompt": torch.randn(20, 12), "words": torch.arange(20) > 9}
    attention = tokens.attention if method.name == "vscan" else {3: tokens.attention[3]}
    tokens = ImageTokens(**(vars(tokens) | prompt | {"class_state": torch.randn(8), "attention": attention}))
    with Kernels() as kernels:
        choice = method.choose(tokens)
    assert len(choice.keep) == 40
    assert kernels.count <= 4 * 40 + 60
