"""CPU time of selections before the decoder, against FasterVLM's: one sort of the tokens.

One thread chooses among random tokens of one image. Times are of the thread, not of the clock, so that other processes
change them little. Reading the vision tower is not part of them.

    python -m studies.selection.measure --out studies/selection/results/2880-tokens.json
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from studies.record import record
from vistrim.methods import VScan, get_method
from vistrim.methods.base.image_tokens import ImageTokens
from vistrim.methods.base.per_image import PerImage

NAMES = ("fastervlm", "holov", "visionzip", "vscan", "divprune", "cdpruner", "vispruner", "scope")
"""Methods with at most one part before the decoder, and without a model of their own."""
TEXT = 64
KEY_WIDTH = 64


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--columns", type=int, default=60)
    parser.add_argument("--width", type=int, default=1024, help="of the embeddings and of the tower's features")
    parser.add_argument("--keep", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    # The first round warms up.
    for number in track(range(options.repeats + 1), "rounds", console=Console(stderr=True)):
        for name in NAMES:
            taken = choose_seconds(part_before_the_decoder(name, options.keep), options)
            if number:
                seconds[name].append(taken)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: value / medians["fastervlm"] for name, value in medians.items()}

    table = Table("", "CPU time, ms", "times FasterVLM's", title=f"{options.rows * options.columns} tokens")
    for name, value in medians.items():
        table.add_row(name, f"{1e3 * value:.2f}", f"{ratios[name]:.0f}")
    Console().print(table)
    record(options, seconds=medians, ratios=ratios)


def part_before_the_decoder(name: str, keep: int) -> PerImage:
    """Make a method, or its part that selects before the decoder."""
    # The default of VisionZip, 54 and 10, is 64 tokens, too.
    method = get_method(name) if name == "visionzip" else get_method(name, keep=keep)
    found = method.parts[0] if isinstance(method, VScan) else method
    assert isinstance(found, PerImage)
    return found


@torch.no_grad()
def choose_seconds(method: PerImage, options: argparse.Namespace) -> float:
    """Time one choice among random tokens."""
    generator = torch.Generator().manual_seed(0)
    n = options.rows * options.columns

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    embeddings = random(n, options.width)
    blocks = (8, 22) if method.name == "vscan" else (22,)
    image = ImageTokens(
        number=0,
        n=n,
        grid=(options.rows, options.columns),
        embeddings=embeddings,
        attention={block: random(n).softmax(0) for block in blocks},
        features=random(n, options.width),
        keys={22: random(n, KEY_WIDTH)},
        whole_image=embeddings,
        prompt=torch.cat([embeddings, random(TEXT, options.width)]),
        words=torch.arange(n + TEXT) >= n,
    )
    began = time.thread_time()
    method.choose(image)
    return time.thread_time() - began


if __name__ == "__main__":
    main()
