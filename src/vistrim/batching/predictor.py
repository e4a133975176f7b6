"""A model and a method that answer tables of prompts; can be sent to another process."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistrim._utils.image_files import Encoded, Source, read_images
from vistrim._utils.labels import UNTOUCHED
from vistrim.errors import InputError, PromptError
from vistrim.evaluation.items import Item, Task
from vistrim.evaluation.questions import Question, is_video
from vistrim.evaluation.records import Answer

if TYPE_CHECKING:
    from vistrim.methods import Method

GENERATION = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "min_new_tokens")
"""Settings of ``generate`` that a predictor takes, beside ``max_new_tokens``."""
RESULTS = (*(attribute.name for attribute in fields(Answer)), "seconds", "error")
"""Columns that a predictor adds."""
SHOWN = ("image", "video")
"""Columns of images, and of videos."""


@dataclass
class Predictor:
    """Answers tables of prompts with a model, untouched or trimmed.

    The model is loaded by the first call. Pickling keeps the settings only, so that a copy in another process loads the
    model itself.

    Parameters
    ----------
    model : str
        Reference model, local directory or Hugging Face id.
    method : str
        Method in the notation, or "untouched".
    budget : str, optional
        Budget that the method is set to, such as ``"tokens=0.33"``.
    dtype, device : str
        See `vistrim.load`.
    max_new_tokens : int
        Longest answer, in tokens.
    generation : mapping
        Further settings of ``generate``, of those in ``GENERATION``. Answers are greedy by default.
    seed : int
        Seed of sampled answers, which also depend on the batch.
    budget_prompts : mapping of str to sequence, optional
        Prompts whose sizes the budget refers to: columns as for a call. None: one image of the model's native size, and
        64 text tokens.
    resolved : str, optional
        Notation of the method at its budget, if an earlier run has found it.

    Raises
    ------
    ValueError
        If the method, budget or a setting does not exist.

    Examples
    --------
    >>> predict = Predictor("reference", "st3", max_new_tokens=16)
    >>> predict({"image": ["examples/images/scene-3.png"], "prompt": ["What color is the star?"]})["answer"]
    ['red']
    """

    model: str
    method: str = UNTOUCHED
    budget: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_new_tokens: int = 160
    generation: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    budget_prompts: Mapping[str, Sequence[Any]] | None = None
    resolved: str | None = None
    _loaded: tuple[Any, Any, Method | None] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Imported late, as everything that needs torch: a cluster's processes import this module before they have work.
        from vistrim.methods.base.budgeted import read_budget
        from vistrim.methods.base.notation import parse_method

        if self.method != UNTOUCHED:
            self.method = str(parse_method(self.method))
        if self.budget is not None:
            read_budget(self.budget)
        if self.method == UNTOUCHED and self.budget is not None:
            raise ValueError(f"the untouched model cannot have the budget {self.budget}: name a method")
        if unknown := [name for name in self.generation if name not in GENERATION]:
            raise ValueError(
                f"a predictor does not take {', '.join(unknown)}: the settings are {', '.join(GENERATION)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def settings(self) -> dict[str, Any]:
        """Settings that answers depend on and that are known without the model."""
        generation = {"max_new_tokens": self.max_new_tokens, **self.generation}
        return {"method": self.method, "budget": self.budget, "seed": self.seed, "generation": generation}

    def identity(self) -> dict[str, str]:
        """Load the model, and tell everything else that answers depend on: weights, versions, the method as it was set.

        Returns
        -------
        dict of str to str
            "resolved" is the notation of the method at its budget, and "files" the hash of its files and guide model.

        Raises
        ------
        LoadError, UnsupportedModelError, UnsupportedGenerationError
            If the model cannot be loaded or trimmed.
        ValueError
            If the method's parameters do not fit the model, or its budget is out of reach.
        """
        from vistrim.engine import describe
        from vistrim.loading import identity
        from vistrim.methods.base.method_hash import method_hash

        model, processor, method = self.load()
        files = "" if method is None else method_hash(method, describe(model).facts)
        return {**identity(model, processor), "resolved": UNTOUCHED if method is None else str(method), "files": files}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Answer the prompts of a table, in one batch.

        Parameters
        ----------
        batch : mapping of str to sequence
            Columns ``prompt`` (text) and ``image`` (path or bytes of an image file, or several of them) or ``video``
            (the same for the frames of a video), each None where there is nothing. All others are returned as they are.

        Returns
        -------
        dict of str to list
            The columns without ``image`` and ``video``, and those of ``RESULTS``: the answer, its tokens, FLOPs and KV
            bytes (see `vistrim.evaluation.records.Answer`), the seconds of its batch per row, and the error. If a row
            fails, its error is text, its answer empty and its numbers are NaN; no other row is affected.

        Raises
        ------
        LoadError, UnsupportedModelError, UnsupportedGenerationError
            If the model cannot be loaded or trimmed.
        """
        from vistrim.evaluation.retrying import each

        items = _items(batch)
        found: list[dict[str, Any]] = [failed(item) if isinstance(item, str) else {} for item in items]
        good = [number for number, item in enumerate(items) if isinstance(item, Item)]
        answers = each([items[number] for number in good], self._answers, (PromptError, InputError)) if good else []
        for number, given in zip(good, answers, strict=True):
            found[number] = failed(given) if isinstance(given, str) else given
        kept = {name: list(values) for name, values in batch.items() if name not in SHOWN}
        return kept | {name: [row[name] for row in found] for name in RESULTS}

    def _answers(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        import torch

        from vistrim.evaluation.answering import answer

        model, processor, method = self.load()
        # Sampled answers are the same when the same batch is repeated.
        content = json.dumps([self.seed, *(item.prompt for item in items)])
        torch.manual_seed(int(hashlib.sha256(content.encode()).hexdigest()[:12], 16))
        start = time.perf_counter()
        answers = answer(model, processor, items, method, self.max_new_tokens, self.generation)
        seconds = (time.perf_counter() - start) / len(items)
        missing = {None: math.nan}
        return [
            {name: missing.get(value, value) for name, value in asdict(one).items()} | {"seconds": seconds, "error": ""}
            for one in answers
        ]

    def load(self) -> tuple[Any, Any, Method | None]:
        """Load the model, unless it is loaded: model, processor, and the method at its budget.

        Raises
        ------
        LoadError, UnsupportedModelError, ValueError
            See `identity`.
        """
        if self._loaded is None:
            from vistrim.loading import load
            from vistrim.methods.base.notation import parse_method
            from vistrim.trimming import prepare_trim

            model, processor = load(self.model, dtype=self.dtype, device=self.device)
            method = None if self.method == UNTOUCHED else parse_method(self.resolved or self.method)
            if method is not None:
                if self.budget is not None and self.resolved is None:
                    method = self._at_budget(method, self.budget, model, processor)
                prepare_trim(model, method)
            self._loaded = model, processor, method
        return self._loaded

    def _at_budget(self, method: Method, budget: str, model: Any, processor: Any) -> Method:
        from vistrim.budgeting import set_to_budget
        from vistrim.evaluation.item_prompts import check_prompts, format_items

        good = []
        for item in _items(self.budget_prompts or {"prompt": []}):
            # A bad row is an error of that row alone, when it is answered.
            with suppress(InputError):
                if isinstance(item, Item):
                    check_prompts([item], processor)
                    good.append(item)
        inputs = format_items(processor, good) if good else None
        (found,) = set_to_budget(
            {method.name: method}, model, budget, inputs=inputs, new_tokens=self.max_new_tokens
        ).values()
        return found.method


def columns(items: Iterable[Item]) -> dict[str, list[Any]]:
    """Columns of a table for a predictor: absolute paths of image files, and bytes of all other images."""
    items = list(items)
    table: dict[str, list[Any]] = {"id": [item.id for item in items], "prompt": [item.prompt for item in items]}
    files = [[_portable(source) for source in _sources(item)] for item in items]
    if any(isinstance(one, bytes) for several in files for one in several):
        # A column has one type.
        files = [[one if isinstance(one, bytes) else Path(one).read_bytes() for one in several] for several in files]
    for name in SHOWN:
        own = [is_video(item) == (name == "video") for item in items]
        if any(own):
            table[name] = [several if here else None for several, here in zip(files, own, strict=True)]
    return table


def rows_of(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows of a table."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def outcome(row: Mapping[str, Any]) -> Answer | str:
    """The answer in a row that a predictor returned, or the error."""
    if row["error"]:
        return str(row["error"])
    values = {attribute.name: _plain(attribute.type, row[attribute.name]) for attribute in fields(Answer)}
    return Answer(**values)


def _plain(kind: Any, value: Any) -> Any:
    """Undo what a table does to values: NaN stands for none, and whole numbers may have become floats."""
    convert = {"int": int, "bool": bool, "str": str}.get(kind, float)
    return None if value != value else convert(value)


def _items(table: Mapping[str, Sequence[Any]]) -> list[Item | str]:
    """Questions of a table; text says why a row is none."""
    prompts = list(table["prompt"])
    images, videos = (table.get(name, [None] * len(prompts)) for name in SHOWN)
    return [_item(*row) for row in zip(prompts, images, videos, strict=True)]


def _item(prompt: Any, image: Any, video: Any) -> Item | str:
    images, frames = _listed(image), _listed(video)
    sources: list[Source] = []
    if images and frames:
        return "the row has an image and a video: leave one out"
    if not (images or frames):
        return "the row has no image: give a path or the bytes of an image file, or the frames of a video"
    if not isinstance(prompt, str) or not prompt.strip():
        return "the row has no prompt: give it as text"
    for number, one in enumerate(images or frames, 1):
        if isinstance(one, bytes):
            sources.append(Encoded(f"image {number}", partial(bytes, one)))
        elif isinstance(one, (str, Path)):
            sources.append(Path(one))
        else:
            return f"image {number} is {type(one).__name__}: give a path or the bytes of an image file"
    return Question(
        "row",
        Task("row"),
        prompt.strip(),
        "",
        partial(_first, sources[0]),
        name="",
        sources=tuple(sources),
        answers=(),
        is_video=bool(frames),
    )


def _listed(files: Any) -> list[Any]:
    one = isinstance(files, (str, bytes, Path)) or not isinstance(files, Iterable)
    return [] if files is None else [files] if one else list(files)


def _first(source: Source) -> Any:
    return read_images([source])[0]


def _sources(item: Item) -> Sequence[Any]:
    return item.sources if isinstance(item, Question) else item.images()


def _portable(source: Any) -> str | bytes:
    if isinstance(source, Path):
        return str(source.absolute())
    if isinstance(source, Encoded):
        return source.read()
    file = io.BytesIO()
    source.save(file, "png")
    return file.getvalue()


def failed(error: str) -> dict[str, Any]:
    """Values of ``RESULTS`` of a row without an answer."""
    texts: dict[str, Any] = {"answer": "", "error": error, "ended": False, "exited": False}
    return {name: texts.get(name, math.nan) for name in RESULTS}
