"""``vistrim check``: verify trimming on the user's own checkpoint and hardware."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vistrim._utils.image_files import read_images
from vistrim.checking.defaults import NEW_TOKENS, PROMPT
from vistrim.cli.error_lines import FAILED, WrongUsageError, memory_advice
from vistrim.cli.loading_options import Device, Dtype
from vistrim.cli.output_folders import check_folder
from vistrim.cli.prompts import read_prompts
from vistrim.cli.starting import importing
from vistrim.errors import PromptError
from vistrim.prompting import check_text


def check_command(
    model: Annotated[
        str, typer.Argument(help="Reference model, local directory or Hugging Face id.", metavar="MODEL")
    ] = "reference",
    image: Annotated[
        Path | None, typer.Option(help="Image of the prompt; a drawn example by default.", metavar="FILE")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Question about the image.")] = PROMPT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the page.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for check.json and check.md, to attach to a bug report.", metavar="DIR")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = NEW_TOKENS,
) -> None:
    """Verify on your own model and hardware that trimming is computed correctly.

    Compares trimmed runs with the untouched model, in which the removed tokens are hidden by the attention mask. Checks
    the bytes of the KV cache and padded batches. Measures the speed-up. The exit code is 1 if a check fails.

    Example: vistrim check llava-hf/llava-1.5-7b-hf --out check
    """
    # The cheapest checks come first: torch and transformers take seconds to import, and a model takes longer.
    [asked] = read_prompts(prompt)
    shown = None if image is None else read_images([image])[0]
    if out is not None:
        check_folder(out)
    with importing():
        from vistrim._utils.files import write_whole
        from vistrim.checking import check
        from vistrim.cli.models import check_loading, load_model
        from vistrim.cli.terminal_tables import table_console
    check_loading(dtype, device)

    loaded, processor = load_model(model, dtype, device)
    try:
        check_text(processor, asked)
    except PromptError as error:
        raise WrongUsageError(str(error)) from error
    with (
        memory_advice("use a smaller --image, --dtype bfloat16 or a smaller model"),
        Console(stderr=True, highlight=False, markup=False).status("the untouched model") as status,
    ):
        report = check(loaded, processor, image=shown, prompt=asked, new_tokens=new_tokens, progress=status.update)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "check.json", report.to_json() + "\n")
        write_whole(out / "check.md", report.markdown())
    if as_json:
        typer.echo(report.to_json())
    else:
        console = table_console()
        console.print(report)
        if out is not None:
            console.print(f"written: {out / 'check.json'}, check.md", markup=False, soft_wrap=True)
    if not report.passed:
        raise typer.Exit(FAILED)
