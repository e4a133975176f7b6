"""Tolerances scale with magnitude: tensors are compared by `tests.closeness`, never within an absolute distance."""

import ast
from pathlib import Path

import pytest
import torch

import tests
from tests.closeness import ROUNDING, close, error

FUNCTIONS = {"allclose", "assert_allclose", "assert_close", "isclose"}
"""Of torch and NumPy: element by element, with an absolute tolerance that is there also when none is given."""
UP, DOWN = (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)
REDUCTIONS = {"max", "amax", "mean", "norm", "sum"}


def _called(node: ast.AST) -> str:
    """Name of the function or method that a call calls; empty for all else."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", None) or getattr(function, "id", "")


def _is_within(node: ast.AST) -> bool:
    """Whether an expression is pytest's `approx` with an absolute tolerance."""
    return isinstance(node, ast.Call) and _called(node) == "approx" and any(k.arg == "abs" for k in node.keywords)


def _is_distance(node: ast.AST, limit: ast.AST) -> bool:
    """Whether an expression is the size of a difference of tensors, or of numbers where that is compared to a float."""
    inside = list(ast.walk(node))
    names = {_called(part) for part in inside}
    differs = any(isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) for part in inside)
    within_float = isinstance(limit, ast.Constant) and isinstance(limit.value, float)
    return differs and "abs" in names and (within_float or bool(names & REDUCTIONS))


def absolute_tolerances(source: str) -> list[int]:
    """Lines of a module that compare tensors within an absolute distance."""
    nodes = list(ast.walk(ast.parse(source)))
    assigned = {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = [node.lineno for node in nodes if isinstance(node, ast.Call) and _called(node) in FUNCTIONS]
    for node in nodes:
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            ordered = [(a, b) if isinstance(op, UP) else (b, a) for a, op, b in pairs if isinstance(op, UP + DOWN)]
            for small, large in ordered:
                distance = assigned.get(small.id, small) if isinstance(small, ast.Name) else small
                if _is_distance(distance, large):
                    found.append(node.lineno)
            if any(map(_is_within, sides)) and any(_called(part) == "item" for part in ast.walk(node)):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "assert torch.allclose(a, b, atol=1e-5)",
        "assert torch.allclose(a, b)",
        "torch.testing.assert_close(a, b, rtol=0, atol=1e-4)",
        "np.testing.assert_allclose(a, b, atol=1e-12)",
        "assert (a - b).abs().max() < 1e-5",
        "assert (a - b).abs().max() <= TOLERANCE",
        "assert 1e-5 > (a - b).abs().amax().item()",
        "assert torch.max(torch.abs(a - b)) < 1e-5",
        "assert abs(a - b).max() < 1e-5",
        "worst = (a - b).abs().max()\nassert worst < 1e-5",
        "assert abs(loss - again) <= 1e-5",
        "assert a.item() == pytest.approx(b.item(), abs=1e-5)",
    ],
)
def test_an_absolute_tolerance_is_found(line):
    assert absolute_tolerances(line)


@pytest.mark.parametrize(
    "line",
    [
        "assert close(a, b)",
        "assert torch.equal(a, b)",
        "assert (a - b).abs().max() > 0.01",
        "assert share == pytest.approx(0.4, abs=0.01)",
        "assert abs(first - last) <= 1",
        "near = (a - b).abs() * 2 < window",
    ],
)
def test_other_comparisons_are_left_alone(line):
    # That two tensors differ a lot is no tolerance.
    assert not absolute_tolerances(line)


def test_no_test_compares_tensors_within_an_absolute_distance():
    root = Path(tests.__file__).parent
    found = {
        f"{path.relative_to(root)}:{line}"
        for path in root.rglob("*.py")
        if path != root / "closeness.py"
        for line in absolute_tolerances(path.read_text(encoding="utf-8"))
    }
    assert not found


def test_errors_are_relative_to_the_largest_value():
    small = torch.tensor([1e-3, 1.0])
    for scale in (1, 1000):
        assert error(scale * (small + 1e-3), scale * small) == pytest.approx(1e-3, rel=1e-3)
    assert close(33 + torch.tensor([2e-5]), torch.tensor([33.0]))
    assert not close(torch.tensor([2e-5]), torch.tensor([1e-5]))


def test_the_less_precise_type_decides():
    value = torch.tensor([1.0, 0.3])
    assert close(value.bfloat16(), value)
    assert not close(value.bfloat16().float(), value)
    assert sorted(ROUNDING, key=ROUNDING.__getitem__) == sorted(ROUNDING, key=lambda dtype: torch.finfo(dtype).eps)


def test_masked_logits_are_no_magnitude():
    masked = torch.tensor([1.0, torch.finfo(torch.float32).min])
    assert close(masked, masked.clone())
    assert error(masked + torch.tensor([1e-3, 0.0]), masked) == pytest.approx(1e-3, rel=1e-3)
    assert not close(torch.tensor([1.0, 1.0]), masked)


def test_infinities_and_nan_have_their_places():
    holes = torch.tensor([1.0, torch.inf, torch.nan])
    assert close(holes, holes.clone())
    for other in (torch.tensor([1.0, 1.0, torch.nan]), torch.tensor([1.0, torch.inf, 1.0])):
        assert not close(other, holes)
        assert not close(holes, other)
    assert not close(torch.tensor([1e-9]), torch.zeros(1))
    with pytest.raises(AssertionError, match="is not"):
        close(torch.zeros(2), torch.zeros(1))
