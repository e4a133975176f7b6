"""Measure all cells without results, each with a run of lmms-eval: ``python -m studies.llava_1_5_7b.measure``."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.llava_1_5_7b.plan import BENCHMARKS, BUDGETS, METHODS, MODEL, Cell, cells

RESULTS = "results.json"
LOG = "log.txt"


def arguments(cell: Cell, model: str, extra: str) -> str:
    """The value of ``--model_args``."""
    parts = [f'pretrained="{model}"', f'method="{cell.method}"']
    if cell.budget is not None:
        parts.append(f'budget="{cell.budget}"')
    return ",".join([*parts, extra] if extra else parts)


def command(cell: Cell, folder: Path, options: argparse.Namespace) -> list[str]:
    """The command of a cell."""
    launch = [sys.executable, "-m"]
    if options.processes > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}", "-m"]
    found = [*launch, "lmms_eval", "--model", "vistrim", "--model_args"]
    found += [arguments(cell, options.model, options.model_args)]
    found += ["--tasks", options.task_prefix + cell.benchmark.task, "--batch_size", str(options.batch_size)]
    # With another verbosity, lmms-eval prints errors and ends as if there were none.
    found += ["--output_path", str(folder), "--log_samples", "--verbosity", "DEBUG"]
    for name in ("include_path", "limit", "device"):
        value = getattr(options, name)
        found += [f"--{name}", str(value)] if value is not None else []
    return found


def measure(cell: Cell, options: argparse.Namespace) -> bool:
    """Run one cell; True if it has results now."""
    folder = cell.folder(options.out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / LOG).open("w") as log:
        subprocess.run(command(cell, folder, options), stdout=log, stderr=subprocess.STDOUT, check=False)
    written = sorted(folder.rglob("*_results.json"))
    if not written:
        return False
    written[-1].replace(folder / RESULTS)
    return True


def options_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("llava-1.5-7b"), help="folder of the results")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--model-args", default="", help="further arguments of the model, such as dtype=bfloat16")
    parser.add_argument("--method", action="append", default=[], help="one more method; repeatable")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="methods instead of the usual ones")
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS))
    parser.add_argument("--benchmarks", nargs="*", default=[one.name for one in BENCHMARKS])
    parser.add_argument("--processes", type=int, default=1, help="GPUs to share the questions of a benchmark")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", help="of lmms-eval, such as cpu")
    parser.add_argument("--limit", type=int, help="questions per benchmark, for a trial")
    parser.add_argument("--include-path", help="folder of own tasks")
    parser.add_argument("--task-prefix", default="", help="prefix of the names of tasks, for those of --include-path")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measure what is missing; 1 if a cell failed."""
    options = options_of(given)
    wanted = cells([*options.methods, *options.method], options.budgets, options.benchmarks)
    missing = [cell for cell in wanted if not (cell.folder(options.out) / RESULTS).exists()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} cells have results", flush=True)
    failed = []
    for number, cell in enumerate(missing, 1):
        name = " ".join(filter(None, (cell.method, cell.budget, cell.benchmark.name)))
        print(f"{number}/{len(missing)} {name}", flush=True)
        if not measure(cell, options):
            failed.append(cell)
            print(f"  failed, see {cell.folder(options.out) / LOG}", flush=True)
    print(f"{len(failed)} cells failed; repeat the command to try them again" if failed else "all cells have results")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
