"""The models that lmms-eval runs: ``Vistrim`` for chat tasks, and ``SimpleVistrim`` with ``--force_simple``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from vistrim._utils.labels import UNTOUCHED
from vistrim.errors import VistrimError
from vistrim.evaluation.answering import answer_inputs
from vistrim.integrations.lmms.arguments import read_arguments
from vistrim.integrations.lmms.costs import Costs, means_by_task
from vistrim.integrations.lmms.likelihood import likelihood
from vistrim.integrations.lmms.requests import Message, conversation, rounds, user_message
from vistrim.integrations.lmms.settings import Settings, batches, cut_at_stops, read_settings
from vistrim.integrations.lmms.stopping import StopAt
from vistrim.loading import load
from vistrim.methods import Method
from vistrim.methods.base.notation import parse_method
from vistrim.prompt_budgets import PromptBudgets
from vistrim.prompting import check_context, format_conversations, parts_of
from vistrim.trimming import prepare_trim


class RequestError(VistrimError):
    """A question of a task could not be answered. The message names the question."""


class Vistrim(lmms):
    """A multimodal model with a trimming method.

    Parameters
    ----------
    **arguments
        See `vistrim.integrations.lmms.arguments.ModelArguments`.

    Raises
    ------
    InputError
        If an argument is missing, unknown or of the wrong type.
    LoadError
        If the model cannot be loaded.
    UnsupportedModelError
        If the model cannot be trimmed correctly.
    ValueError
        If the method or budget is wrong, or does not fit the model.
    """

    is_simple = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = read_arguments(arguments)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        device = self.arguments.device
        if device == "auto" or (device == "cuda" and self._world_size > 1):
            device = str(self.accelerator.device)
        self._model, self._processor = load(self.arguments.pretrained, dtype=self.arguments.dtype, device=device)
        self._budgets = None if self.arguments.budget is None else PromptBudgets(self._model)
        self._method = self._find_method()
        self._costs: list[tuple[str, Costs]] = []
        self._seconds = 0.0

    def _find_method(self) -> Method | None:
        if self.arguments.method == UNTOUCHED:
            return None
        method, budget = parse_method(self.arguments.method), self.arguments.budget
        prepare_trim(self._model, method)
        if budget is not None and self._budgets is not None:
            self._budgets.check(method, budget)
        logger.info(f"vistrim trims with {method}{f' at {budget}' if budget is not None else ''}")
        return method

    def _methods(self, inputs: Any) -> list[Method | None]:
        """Method of each prompt of a batch, at its budget."""
        budget = self.arguments.budget
        if self._method is None or self._budgets is None or budget is None:
            return [self._method] * len(inputs["input_ids"])
        return [*self._budgets.methods(self._method, budget, inputs)]

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._model.device

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return self.arguments.batch_size

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer questions.

        Parameters
        ----------
        requests : list of Instance
            Questions, each with its generation arguments.

        Returns
        -------
        list of GenerationResult
            Answers and their costs, in the same order.

        Raises
        ------
        RequestError
            If a question cannot be answered.
        """
        found: dict[int, GenerationResult] = {}
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Answering") as bar:
            for places in batches([self._generation_arguments(one) for one in requests], self.batch_size):
                batch = [requests[place] for place in places]
                with _naming(batch):
                    settings = read_settings(self._generation_arguments(batch[0]))
                    conversations = [self._conversation(one) for one in batch]
                    results = self._answer(batch, conversations, settings)
                found |= zip(places, results, strict=True)
                bar.update(len(places))
        return [found[place] for place in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Answer questions of several rounds, one by one.

        Parameters
        ----------
        requests : list of Instance
            Questions; each round is a conversation of its own.

        Returns
        -------
        list of list of str
            The answers of each question, by round.

        Raises
        ------
        RequestError
            If a question cannot be answered.
        """
        return [self._all_rounds(one) for one in tqdm(requests, disable=self.rank != 0, desc="Answering")]

    def _all_rounds(self, request: Instance) -> list[str]:
        _, ask, arguments, *_ = request.args
        with _naming([request]):
            settings = read_settings(arguments)

            def answer(messages: list[Message]) -> str:
                return self._answer([request], [messages], settings)[0].text

            return rounds(ask, self._document(request), answer)

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Score given answers, each in one forward pass. Tasks of this kind need ``--force_simple``.

        Parameters
        ----------
        requests : list of Instance
            Prompts and answers.

        Returns
        -------
        list of GenerationResult
            With ``text``, a pair: the loss per token, as all models of lmms-eval return it, and whether the answer is
            the greedy one. The evaluator of lmms-eval 0.7.3 turns a bare pair into text.

        Raises
        ------
        RequestError
            If an answer cannot be scored.
        """
        results = []
        for request in tqdm(requests, disable=self.rank != 0, desc="Scoring"):
            with _naming([request]):
                started = time.perf_counter()
                messages, answer = self._prompt_and_answer(request)
                inputs = self._inputs([messages])
                (method,) = self._methods(inputs)
                found = likelihood(self._model, self._processor, inputs, answer, method)
            costs = Costs.of_likelihood(found)
            self._note([request], [costs], started)
            results.append(GenerationResult((found.loss, found.is_greedy), costs))
        return results

    def clean(self) -> None:
        """Report the costs of all processes, and free the memory of the model."""
        seconds = [float(value) for value in gather_object([self._seconds])]
        costs = gather_object(self._costs)
        if costs:
            new_tokens = sum(one.output_tokens for _, one in costs)
            log_metrics(
                total_elapsed_time=max(seconds),
                total_gen_tokens=new_tokens,
                avg_speed=new_tokens / max(seconds),
                additional_metrics={"num_requests": len(costs), **means_by_task(costs)},
            )
        super().clean()

    def _answer(
        self, requests: Sequence[Instance], conversations: Sequence[list[Message]], settings: Settings
    ) -> list[GenerationResult]:
        started = time.perf_counter()
        inputs = self._inputs(conversations)
        methods = self._methods(inputs)
        if len(set(methods)) > 1:
            return self._answer_apart(methods, requests, conversations, settings)
        generate = dict(settings.generate)
        if settings.stops:
            prompt = inputs["input_ids"].shape[1]
            generate["stopping_criteria"] = [StopAt(settings.stops, self._processor.tokenizer, prompt)]
        answers = answer_inputs(
            self._model,
            self._processor,
            inputs,
            methods[0],
            max_new_tokens=self._longest_answer(inputs, settings),
            **generate,
        )
        costs = [Costs.of_answer(answer) for answer in answers]
        self._note(requests, costs, started)
        return [
            GenerationResult(cut_at_stops(answer.answer, settings.stops), cost)
            for answer, cost in zip(answers, costs, strict=True)
        ]

    def _answer_apart(
        self,
        methods: Sequence[Method | None],
        requests: Sequence[Instance],
        conversations: Sequence[list[Message]],
        settings: Settings,
    ) -> list[GenerationResult]:
        """Answer a batch whose prompts have different methods at the budget, in one batch for each method."""
        found: dict[int, GenerationResult] = {}
        for method in dict.fromkeys(methods):
            places = [place for place, own in enumerate(methods) if own == method]
            results = self._answer(
                [requests[place] for place in places], [conversations[place] for place in places], settings
            )
            found |= zip(places, results, strict=True)
        return [found[place] for place in range(len(requests))]

    def _note(self, requests: Sequence[Instance], costs: Sequence[Costs], started: float) -> None:
        self._seconds += time.perf_counter() - started
        # Copies of the last request make processes run equally often.
        own = [not request.metadata.get("__padding_only__") for request in requests]
        self._costs += [(one.task_name, cost) for one, cost, counts in zip(requests, costs, own, strict=True) if counts]

    def _inputs(self, conversations: Sequence[list[Message]]) -> Any:
        frames = self.arguments.num_frames
        has_videos = any(part["type"] == "video" for part in parts_of(conversations))
        options = {"num_frames": frames} if has_videos and frames is not None else {}
        return format_conversations(self._processor, conversations, **options)

    def _longest_answer(self, inputs: Any, settings: Settings) -> int:
        """Longest answer that the task and the context permit."""
        check_context(self._model, inputs, 1)
        wanted = settings.max_new_tokens or self.arguments.max_new_tokens
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return wanted if context is None else min(wanted, context - inputs["input_ids"].shape[1])

    def _document(self, request: Instance) -> Any:
        *_, number, task, split = request.args
        return self.task_dict[task][split][number]

    def _generation_arguments(self, request: Instance) -> Mapping[str, Any]:
        return request.args[2]

    def _conversation(self, request: Instance) -> list[Message]:
        _, ask, *_ = request.args
        return conversation(ask(self._document(request)))

    def _prompt_and_answer(self, request: Instance) -> tuple[list[Message], str]:
        raise RequestError("lmms-eval asks for the likelihood of answers in simple tasks only: add --force_simple")


class SimpleVistrim(Vistrim):
    """The same model for tasks that lmms-eval does not offer to chat models, such as those with given answers."""

    is_simple = True

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Refuse: several rounds need the chat model.

        Parameters
        ----------
        requests : list of Instance
            Questions.

        Raises
        ------
        RequestError
            Always.
        """
        raise RequestError("tasks of several rounds need the chat model: leave --force_simple out")

    def _generation_arguments(self, request: Instance) -> Mapping[str, Any]:
        return request.args[1]

    def _conversation(self, request: Instance) -> list[Message]:
        text, _, look, *_ = request.args
        return user_message(look(self._document(request)), text)

    def _prompt_and_answer(self, request: Instance) -> tuple[list[Message], str]:
        text, answer, *rest = request.args
        # Answers without a question, for mutual information, have no document.
        visuals = rest[0](self._document(request)) if rest else None
        return user_message(visuals, text), answer if isinstance(answer, str) else answer(self._document(request))


@contextmanager
def _naming(requests: Sequence[Instance]) -> Any:
    """Name the questions in errors. lmms-eval's own models score them as empty answers instead."""
    try:
        yield
    except Exception as error:
        numbers = ", ".join(str(one.doc_id) for one in requests)
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise RequestError(f"task {requests[0].task_name}, documents {numbers}: {reason}") from error
