"""The chat service: turns requests into jobs, and their events into answers."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from vistrim._utils.memory import is_out_of_memory
from vistrim.serving import metrics as outcomes
from vistrim.serving.answering import Answering, Disconnected
from vistrim.serving.choosing import Choice, Methods
from vistrim.serving.completions import END, Completion, event
from vistrim.serving.engine import Engine
from vistrim.serving.errors import RequestError, out_of_memory
from vistrim.serving.fetching import fetch_image
from vistrim.serving.guards import Receive
from vistrim.serving.images import ImageReader
from vistrim.serving.jobs import Done, Failed, Job, Piece
from vistrim.serving.limits import Limits
from vistrim.serving.messages import check_messages, read_messages
from vistrim.serving.metrics import Metrics
from vistrim.serving.protocol import ChatRequest
from vistrim.serving.sampling import Sampling

PREPARING_THREADS = 2


class ChatService:
    """Answers chat requests.

    Parameters
    ----------
    engine : Engine
        Generates the answers.
    methods : Methods
        The methods that requests may choose.
    limits : Limits
        The limits of the server.
    metrics : Metrics
        Records requests.
    tokenizer : PreTrainedTokenizerBase
        Writes the tokens of log-probabilities; used by no other thread.
    """

    def __init__(self, engine: Engine, methods: Methods, limits: Limits, metrics: Metrics, tokenizer: Any) -> None:
        self.engine, self.methods, self.limits, self.metrics = engine, methods, limits, metrics
        self._tokenizer = tokenizer
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="vistrim-prepare")
        self._sampling = Sampling.of_model(engine.model.generation_config)
        self._typical_seconds = 1.0

    def retry_after(self) -> int:
        """Return the seconds after which there may be room for another request."""
        return max(1, round(self._typical_seconds))

    async def complete(self, request: ChatRequest, receive: Receive, request_id: str) -> dict[str, Any]:
        """Answer a request in one piece.

        Parameters
        ----------
        request : ChatRequest
            The request.
        receive : callable
            ASGI's function, after the body has been read.
        request_id : str
            Id of the request in the log.

        Raises
        ------
        RequestError
            If it cannot be answered.
        Disconnected
            If the client goes.
        """
        with closing(await self._begin(request, receive, request_id)) as answer:
            pieces = [piece async for piece in answer]
            return answer.completion.whole(pieces, answer.done, request.logprobs is True)

    async def stream(self, request: ChatRequest, receive: Receive, request_id: str) -> "ChatStream":
        """Answer a request in server-sent events, with the arguments and errors of `complete`.

        Returns
        -------
        ChatStream
            Its first event is there already, so that errors before it have a status of their own.
        """
        options = request.stream_options
        with_usage = options is not None and options.include_usage
        return ChatStream(await self._begin(request, receive, request_id), with_usage)

    async def _begin(self, request: ChatRequest, receive: Receive, request_id: str) -> "_Answer":
        """Submit the job of a request, which is made in another thread, and wait for its first event."""
        answering = Answering(receive, self.limits.deadline)
        loop = asyncio.get_running_loop()
        try:
            job, choice = await answering.wait(
                loop.run_in_executor(self._pool, self._make_job, request, answering, request_id)
            )
        except BaseException as error:
            answering.close()
            if isinstance(error, RequestError):
                self.metrics.reject(error.code)
            raise
        answer = _Answer(self, answering, job, choice, Completion(request.model, job.prompt_tokens, self._tokenizer))
        try:
            answering.start(job, self.engine.submit)
            await answer.wait()
        except BaseException:
            answer.close()
            raise
        return answer

    def _make_job(self, request: ChatRequest, answering: Answering, request_id: str) -> tuple[Job, Choice]:
        options = request.vistrim
        if options is not None and options.trace and not self.limits.trace:
            raise RequestError(
                "this server gives no traces: leave out trace", code="trace_not_allowed", param="vistrim"
            )
        if request.top_logprobs is not None and not request.logprobs:
            raise RequestError("top_logprobs needs logprobs=true", param="top_logprobs")
        # Without images, for errors that need none.
        check_messages(request.messages, self.limits)
        reader = ImageReader(self.limits, fetch_image)
        try:
            inputs = self.engine.preparer.prepare(read_messages(request.messages, reader.read))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory() from None
        notation, budget = (options.method, options.budget) if options is not None else (None, None)
        choice = self.methods.choose(request.model, notation, budget, inputs)
        stop = request.stop
        job = Job(
            inputs=inputs,
            limit=self._answer_tokens(request, inputs["input_ids"].shape[1]),
            deliver=answering.deliver,
            method=choice.method,
            sampling=self._sampling_of(request),
            stops=[stop] if isinstance(stop, str) else stop or (),
            top_logprobs=request.top_logprobs or 0 if request.logprobs else None,
            trace=options is not None and options.trace,
            seconds=self.limits.deadline,
            arrived=answering.arrived,
            request_id=request_id,
        )
        return job, choice

    def _answer_tokens(self, request: ChatRequest, prompt: int) -> int:
        context = getattr(self.engine.spec.decoder.config, "max_position_embeddings", None)
        longest = [n for n in (context, self.engine.spec.longest) if n is not None]
        room = min(longest) - prompt if longest else self.limits.answer_tokens
        most_prompt = self.limits.prompt_tokens
        if room < 1 or (most_prompt is not None and prompt > most_prompt):
            most = min(n for n in (most_prompt, *(n - 1 for n in longest)) if n is not None)
            raise RequestError(
                f"the prompt has {prompt} tokens, and at most {most} are possible: shorten it, or send fewer images",
                code="context_length_exceeded",
                param="messages",
            )
        wanted = request.max_completion_tokens or request.max_tokens
        if wanted is None:
            return min(self.limits.answer_tokens, room)
        if wanted > min(self.limits.answer_tokens, room):
            raise RequestError(
                f"an answer of {wanted} tokens is too long: ask for at most {min(self.limits.answer_tokens, room)}",
                code="context_length_exceeded" if wanted > room else "answer_too_long",
                param="max_completion_tokens" if request.max_completion_tokens else "max_tokens",
            )
        return wanted

    def _sampling_of(self, request: ChatRequest) -> Sampling:
        default = self._sampling
        return Sampling(
            temperature=default.temperature if request.temperature is None else request.temperature,
            top_p=default.top_p if request.top_p is None else request.top_p,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
        )

    def note(self, label: str, outcome: str, seconds: float) -> None:
        """Record the end of an accepted request."""
        self.metrics.end(label, outcome, seconds)
        if outcome == outcomes.COMPLETE:
            self._typical_seconds += 0.1 * (seconds - self._typical_seconds)

    def close(self) -> None:
        """End the threads. Jobs that are not complete are given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.engine.close(seconds=5)


class _Answer:
    """The parts of an answer, and then its end. Records how it ended."""

    def __init__(
        self, service: ChatService, answering: Answering, job: Job, choice: Choice, completion: Completion
    ) -> None:
        self.completion = completion
        self._service, self._answering, self._job, self._choice = service, answering, job, choice
        self._outcome = outcomes.CANCELLED
        self._found: Piece | Done | None = None

    async def wait(self) -> None:
        """Wait for the next event."""
        try:
            found = await self._answering.next()
            if isinstance(found, Failed):
                raise found.error
        except RequestError as error:
            self._outcome = outcomes.EXPIRED if error.status == 504 else outcomes.FAILED
            raise
        if isinstance(found, Done):
            self._outcome = outcomes.COMPLETE
            self._service.metrics.complete(
                self._choice.label, self._job.prompt_tokens, found.completion_tokens, found.figures
            )
        self._found = found

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while isinstance(self._found, Piece):
            yield self._found
            await self.wait()

    @property
    def done(self) -> Done:
        """The end, after all parts."""
        assert isinstance(self._found, Done)
        return self._found

    def close(self) -> None:
        """Give up what has not been answered yet."""
        self._answering.close()
        self._service.note(self._choice.label, self._outcome, time.monotonic() - self._answering.arrived)


class ChatStream:
    """The events of a streamed answer.

    Parameters
    ----------
    answer : _Answer
        The answer, whose first event is there.
    with_usage : bool
        Whether a chunk with the usage ends it.
    """

    def __init__(self, answer: _Answer, with_usage: bool) -> None:
        self._answer, self._with_usage = answer, with_usage

    async def __aiter__(self) -> AsyncIterator[bytes]:
        completion = self._answer.completion
        try:
            yield event(completion.first())
            async for piece in self._answer:
                yield event(completion.next(piece))
            yield event(completion.last(self._answer.done))
            if self._with_usage:
                yield event(completion.usage(self._answer.done))
            yield END
        except RequestError as error:
            yield event(error.body())
        except Disconnected:
            return

    def close(self) -> None:
        """Give up what has not been sent."""
        self._answer.close()
