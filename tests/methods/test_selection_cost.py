"""The cost of a choice: few kernels, and nothing that waits for the device."""

from tests import tiny
from tests.methods.every_method import SETTINGS, built
from tests.methods.kernels import profiled
from vistrim import trim

FEWEST = 8
"""The tiny image has 16 tokens: fewer kept ones than usual."""
HOOKS = ("choose", "select_prefill")
WITHOUT_CHOICE = {"blind", "downsample", "dyvte", "gsearch", "psigmoid", "quecc", "random", "uniform", "vta", "yopo"}
"""They have no hook of these, or are fitted to the model as another class (keep rates, as those of the others)."""


def test_a_choice_costs_few_kernels_and_waits_for_nothing(monkeypatch):
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    found = []

    def counted(hook):
        def run(*arguments):
            answer, *cost = profiled(lambda: hook(*arguments))
            found.append(cost)
            return answer

        return run

    for name in SETTINGS:
        method = built(name)
        with monkeypatch.context() as patched:
            for part in getattr(method, "parts", None) or (method,):
                for hook in HOOKS:
                    if hasattr(part, hook):
                        patched.setattr(type(part), hook, counted(getattr(type(part), hook)))
            with trim(model, method) as run:
                tiny.generate(model, inputs, 1)
        kept = min(n for (n,) in run.report.visual_tokens_per_layer)
        assert found or name in WITHOUT_CHOICE, name
        for used, waits in found:
            assert not waits, name
            assert len(used) <= 4 * max(kept, FEWEST) + 60, (name, len(used), used)
        found.clear()
