"""Options of all commands that load a model."""

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", help="Reference model, local directory or Hugging Face id.", metavar="NAME")
]
Dtype = Annotated[
    str,
    typer.Option("--dtype", help="auto (the checkpoint's own), float32, bfloat16 or float16.", metavar="NAME"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...", metavar="NAME")]
