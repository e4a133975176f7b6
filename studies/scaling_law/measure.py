"""The best number of visual tokens and model size by the published scaling law, as tables and a figure.

Run ``python -m studies.scaling_law.measure --out studies/scaling_law/results`` at the root of the repository.
"""

import argparse
from pathlib import Path

from studies.scaling_law.law import LAWS, best_visual_tokens, choices
from studies.scaling_law.plot import BUDGETS, plot
from vistrim._utils.tables import Table


def laws_table(text_tokens: int) -> Table:
    """Exponents of each law, and the best number of visual tokens where the size of the model is free."""
    rows: list[tuple[str, ...]] = [
        (name, f"{law.alpha:.4f}", f"{law.beta:.4f}", f"{law.ratio:.2f}", f"{best_visual_tokens(law, text_tokens):.1f}")
        for name, law in LAWS.items()
    ]
    columns = ("law", "alpha (size)", "beta (visual tokens)", "alpha / beta", "best visual tokens")
    return Table(f"Model size free, any FLOP budget, {text_tokens} text tokens", columns, rows)


def choices_table(law: str, text_tokens: int, budget: float) -> Table:
    """Sizes of the paper's models with the visual tokens that a budget of so many FLOPs leaves them, best first."""
    best = choices(LAWS[law], text_tokens, budget / 1e9)
    rows: list[tuple[str, ...]] = [
        (
            f"{one.parameters:g}",
            str(one.visual_tokens),
            f"{1e9 * one.flops:.4g}",
            f"{one.reducible / best[0].reducible:.4f}",
        )
        for one in best
    ]
    columns = ("billion parameters", "visual tokens", "FLOPs", "reducible error, best = 1")
    return Table(f"{budget:g} FLOPs, {text_tokens} text tokens, law {law}", columns, rows)


def main(arguments: list[str] | None = None) -> None:
    """Write ``results.md`` and ``scaling.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text-tokens", type=int, default=50, help="tokens of text in the prompt")
    parser.add_argument("--flops", type=float, default=1e12, help="FLOPs of the prefill, 2 N (Q + V)")
    parser.add_argument("--law", choices=list(LAWS), default="refit", help="law to choose by")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = [laws_table(options.text_tokens), choices_table(options.law, options.text_tokens, options.flops)]
    pages = [table.markdown() for table in tables]
    (options.out / "results.md").write_text("\n\n".join([*pages, "![measurements and law](scaling.png)"]) + "\n")
    plot(options.text_tokens, (*BUDGETS, options.flops / 1e9), options.out / "scaling.png")


if __name__ == "__main__":
    main()
