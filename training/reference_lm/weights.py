"""The trained parts as the files of the distribution ``vistrim-reference-lm``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.reference_lm.decoder import Decoder
from training.reference_lm.projector import Projector
from training.reference_lm.tower import Tower
from vistrim.reference_lm import BASE_SHA256

_PREFIX = "vision_model."


def save(folder: Path, tower: Tower, projector: Projector | None, decoder: Decoder | None, state: dict) -> None:
    """Write what there is, in bf16; each file is replaced at once, so that a killed run leaves whole files."""
    vision = {name.removeprefix(_PREFIX): value for name, value in tower.vision.state_dict().items()}
    _write(folder / "tower.safetensors", {name: value for name, value in vision.items() if "position_ids" not in name})
    if projector is not None:
        _write(folder / "projector.safetensors", projector.state_dict())
    if decoder is not None:
        adapter = decoder.adapter_state()
        names = list(adapter)
        half = len(names) // 2
        _write(folder / "adapter-1.safetensors", {name: adapter[name] for name in names[:half]})
        _write(folder / "adapter-2.safetensors", {name: adapter[name] for name in names[half:]})
        meta = {"rank": decoder.rank, "alpha": decoder.alpha, "base_sha256": BASE_SHA256}
        _write_json(folder / "adapter.json", meta)
    _write_json(folder / "tower.json", tower.vision.config.to_dict())
    _write_json(folder / "state.json", state)


def load_vision(vision: nn.Module, folder: Path) -> None:
    """Take over the tower's weights."""
    state = load_file(folder / "tower.safetensors")
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in vision.state_dict()) else ""
    missing, unexpected = vision.load_state_dict({prefix + k: v.float() for k, v in state.items()}, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise ValueError(f"{folder / 'tower.safetensors'} is another tower: {missing=} {unexpected=}")


def load_projector(projector: nn.Module, folder: Path) -> None:
    projector.load_state_dict({k: v.float() for k, v in load_file(folder / "projector.safetensors").items()})


def load_adapter(decoder: Decoder, folder: Path) -> None:
    decoder.load_adapter(load_file(folder / "adapter-1.safetensors") | load_file(folder / "adapter-2.safetensors"))


def load_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    aside = path.with_suffix(".tmp")
    save_file({k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in tensors.items()}, aside)
    os.replace(aside, path)


def _write_json(path: Path, value: dict) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(aside, path)
