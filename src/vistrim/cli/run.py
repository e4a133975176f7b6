"""``vistrim run``: answer questions about images with a trimmed model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vistrim._utils.image_files import read_images
from vistrim.cli.budgets import Budget, check_budget, set_methods
from vistrim.cli.loading_options import Device, Dtype, Model
from vistrim.cli.overlay_files import check_overlay, numbered
from vistrim.cli.prompts import build_inputs, note_unknown_words, read_prompts
from vistrim.cli.starting import importing


def run(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Image files, all for one prompt. Transparent pixels become white."),
    ],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="The question. By default or with '-': one per line of standard input."),
    ] = None,
    model: Model = "reference",
    method: Annotated[
        str | None,
        typer.Option(
            help="Trimming method, see `vistrim methods`.",
            show_default="st3, with the schedule beside the model if there is one",
            metavar="NAME[:KEY=VALUE,...][+...]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the method; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Preset of st3: balanced, compact or annealed.", metavar="NAME")
    ] = None,
    budget: Budget = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also answer with the untouched model, and show the speed-up.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of runs of --compare, which shows medians.")] = 3,
    overlay: Annotated[
        Path | None, typer.Option(help="Draw the visual tokens that each stage kept.", metavar="FILE.png")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object per prompt.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
) -> None:
    """Answer a question about one or more images with a trimmed model, and report the savings.

    Example: vistrim run photo.jpg -p "What is this?" --compare --overlay kept.png
    """
    # The cheapest checks come first: torch takes seconds to import, transformers takes longer, and a model longest.
    shown = read_images(images)
    prompts = read_prompts(prompt)
    check_overlay(overlay, images, len(prompts))
    with importing():
        from vistrim.cli.parsing import default_method, note_schedules, parse_method
    chosen = parse_method(method or "st3", settings or (), preset)
    check_budget(budget)
    with importing():
        from vistrim.cli.answer_output import print_heading, print_json, print_text, terminal_streamer
        from vistrim.cli.asking import Asker
        from vistrim.cli.models import check_loading, load_model
        from vistrim.cli.overlays import Overlay, save_overlay
        from vistrim.trimming import prepare_trim
    check_loading(dtype, device)

    loaded, processor = load_model(model, dtype, device)
    if method is None and not settings and preset is None:
        chosen = default_method(loaded)
    note_schedules([str(chosen)], loaded)
    if budget is not None:
        inputs = build_inputs(loaded, processor, shown, prompts[0], max_new_tokens)
        (chosen,) = set_methods({method or chosen.name: chosen}, loaded, budget, inputs, max_new_tokens).values()
    console = Console(highlight=False, markup=False)
    streams = console.is_terminal and not as_json
    asker = Asker(
        model=loaded,
        processor=processor,
        trim=prepare_trim(loaded, chosen, trace=overlay is not None),
        trace=overlay is not None,
        images=shown,
        max_new_tokens=max_new_tokens,
        repeats=repeats if compare else 0,
        streamer=terminal_streamer(console, processor) if streams else None,
    )
    for number, text in enumerate(prompts, 1):
        if len(prompts) > 1 and not as_json:
            print_heading(console, text)
        answer = asker.ask(text)
        note_unknown_words(model, processor, text)
        drawn = Overlay()
        if overlay:
            drawn = save_overlay(numbered(overlay, number, len(prompts)), answer, shown, processor)
        if drawn.note:
            typer.echo(f"note: {drawn.note}", err=True)
        if as_json:
            print_json(answer, images, drawn.path)
        else:
            print_text(console, answer, streams, drawn.path)
        if drawn.failure:
            raise drawn.failure
