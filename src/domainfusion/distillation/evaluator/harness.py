"""Tasks of lm-evaluation-harness: their items as examples, and their own way to ask and to
grade.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainfusion.checks import check_count
from domainfusion.distillation.metrics import Graded
from domainfusion.errors import ConfigurationError, DataError, MissingDependencyError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.store import Ask
from domainfusion.types import Example, Generation, Message, Sampling, Score, user

_KINDS = ("generate_until", "multiple_choice")


@dataclass(frozen=True, kw_only=True)
class HarnessTask:
    """A task of lm-evaluation-harness, by its name. Needs `domainfusion[harness]`.

    A model is asked the task's prompt as one question, by its own chat template. Tasks that let it
    write and tasks of multiple choice can be run; the latter compare probabilities, so that models
    that give text alone are left unscored.

    Args:
        name: The task, or a group of tasks.
        folder: A folder of YAML files in which it is looked for; empty looks among the harness's
            own.
        metric: Which of the task's metrics grades an item; empty takes the first.
        num_fewshot: Examples in the prompt; None leaves that to the task.
        limit: How many items of each task are taken, the first ones; None takes all.

    Raises:
        ConfigurationError: A number is out of range.
    """

    name: str
    folder: str = ""
    metric: str = ""
    num_fewshot: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_count("num_fewshot", self.num_fewshot, 0, optional=True)
        check_count("limit", self.limit, optional=True)


class LoadedTask:
    """A task that was read: its items as examples, and the way to grade them.

    Args:
        task: The task.
        slice_name: The slice that its items are reported in.
        domain: The domain that they need.

    Raises:
        MissingDependencyError: lm-evaluation-harness is not installed.
        DataError: There is no such task, it can't be read, or it has no items.
        ConfigurationError: The task measures what a model that answers questions can't be asked.

    Attributes:
        examples: The items.
    """

    def __init__(self, task: HarnessTask, slice_name: str, domain: str) -> None:
        self._settings = task
        self._manager, self._tasks = _load(task)
        self._places: dict[str, tuple[str, int]] = {}
        found = []
        for name, loaded in self._tasks.items():
            for place, document in enumerate(loaded.eval_docs):
                if task.limit is not None and place >= task.limit:
                    break
                example = _to_example(
                    loaded, document, f"{slice_name}/{name}/{place}", slice_name, domain
                )
                self._places[example.id] = (name, place)
                found.append(example)
        if not found:
            raise DataError(
                f"The task {task.name!r} of lm-evaluation-harness has no items", received=task
            )
        self.examples = tuple(found)

    def grade(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        sampling: Sampling,
        ask: Ask,
        label: str,
    ) -> list[Graded]:
        """Puts items to a model and grades its answers as the task does.

        Args:
            model: The model that answers.
            examples: Some of the task's items.
            sampling: How it writes, where the task does not say.
            ask: How the model is called.
            label: Names the work where its progress is shown.

        Returns:
            The answers with their grades, in order; unscored where the task needs probabilities and
            the model gives none.
        """
        wanted: dict[str, list[int]] = {}
        for example in examples:
            name, place = self._places[example.id]
            wanted.setdefault(name, []).append(place)
        found: dict[tuple[str, int], Graded] = {}
        able = {name: places for name, places in wanted.items() if _can(model, self._tasks[name])}
        if able:
            found = self._run(model, able, sampling, ask, label)
        nothing = Graded(
            Generation(text=""), Score.unscored(f"the probabilities of {model.name} can't be had")
        )
        return [found.get(self._places[example.id], nothing) for example in examples]

    def _run(
        self,
        model: LanguageModel,
        wanted: Mapping[str, list[int]],
        sampling: Sampling,
        ask: Ask,
        label: str,
    ) -> dict[tuple[str, int], Graded]:
        import lm_eval

        adapter = _as_harness_model(model, sampling, ask, label)
        with _silenced():
            results = lm_eval.simple_evaluate(
                model=adapter,
                tasks=[self._tasks[name] for name in wanted],
                samples={name: sorted(places) for name, places in wanted.items()},
                num_fewshot=self._settings.num_fewshot,
                task_manager=self._manager,
                bootstrap_iters=0,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        graded: dict[tuple[str, int], Graded] = {}
        for name, samples in results["samples"].items():
            for sample in samples:
                # A task may read one answer in several ways; its first filter is its main one.
                graded.setdefault(
                    (name, sample["doc_id"]), self._to_graded(sample, adapter.written)
                )
        return graded

    def _to_graded(self, sample: Mapping[str, Any], written: Mapping[str, Generation]) -> Graded:
        metric = self._settings.metric or sample["metrics"][0]
        if metric not in sample["metrics"]:
            raise ConfigurationError(
                f"The task {self._settings.name!r} has no metric of this name",
                received=metric,
                allowed=", ".join(sample["metrics"]),
            )
        prompts = sample["arguments"]
        if isinstance(prompts[0][1], str):  # the likelihoods of choices
            totals = [response[0][0] for response in sample["resps"]]
            likeliest = prompts[max(range(len(prompts)), key=totals.__getitem__)][1]
            return Graded(Generation(text=likeliest.strip()), _to_score(metric, sample[metric]))
        return Graded(written[prompts[0][0]], _to_score(metric, sample[metric]))


def _load(task: HarnessTask) -> tuple[Any, dict[str, Any]]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingDependencyError(
            f"The task {task.name!r} needs lm-evaluation-harness",
            fix="pip install 'domainfusion[harness]'",
        ) from error
    folder = Path(task.folder).expanduser() if task.folder else None
    if folder is not None and not folder.is_dir():
        raise DataError("There is no folder of tasks", received=str(folder), fix="check the path")
    with _silenced():
        manager = TaskManager(
            include_path=None if folder is None else str(folder), include_defaults=folder is None
        )
        if task.name not in manager.task_index:
            some = ", ".join(sorted(manager.all_tasks)[:10])
            raise DataError(
                "lm-evaluation-harness has no task of this name",
                received=task.name,
                allowed=f"such as {some}",
                fix="give a file or a task",
            )
        try:
            tasks = dict(manager.load([task.name])["tasks"])
        except Exception as error:  # a task runs what its author wrote, which may fail in any way
            raise DataError(
                f"The task {task.name!r} can't be read: {error}", received=task.folder or task.name
            ) from error
    for name, loaded in tasks.items():
        if loaded.OUTPUT_TYPE not in _KINDS:
            raise ConfigurationError(
                f"The task {name!r} measures the probability of given texts",
                received=loaded.OUTPUT_TYPE,
                allowed=", ".join(_KINDS),
            )
    return manager, tasks


def _to_example(task: Any, document: Any, identity: str, slice_name: str, domain: str) -> Example:
    query, target = task.doc_to_text(document), task.doc_to_target(document)
    choices = (
        [str(choice) for choice in task.doc_to_choice(document)]
        if task.OUTPUT_TYPE == "multiple_choice"
        else []
    )
    if choices and isinstance(target, int) and 0 <= target < len(choices):
        target = choices[target]
    metadata: dict[str, Any] = {"slice": slice_name, **({"choices": choices} if choices else {})}
    reference = target.strip() if isinstance(target, str) else None
    return Example(
        query=str(query),
        domains=(domain,),
        id=identity,
        reference=reference,
        source="curated",
        metadata=metadata,
    )


def _can(model: LanguageModel, task: Any) -> bool:
    return task.OUTPUT_TYPE != "multiple_choice" or isinstance(model, TokenScorer)


def _to_score(metric: str, value: Any) -> Score:
    number = float(value) if isinstance(value, int | float) else float("nan")
    return (
        Score(number)
        if 0 <= number <= 1
        else Score.unscored(f"the task's metric {metric} gave {value}, which is not a grade")
    )


def _as_harness_model(model: LanguageModel, sampling: Sampling, ask: Ask, label: str) -> Any:
    """Returns the model as the harness calls one; `written` holds what it wrote to each prompt."""
    from lm_eval.api.model import LM

    class HarnessModel(LM):  # type: ignore[misc]
        written: dict[str, Generation]

        def __init__(self) -> None:
            super().__init__()
            self.written = {}
            self._stderr = sys.stderr

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            kinds: dict[Sampling, list[Any]] = {}
            for request in requests:
                kinds.setdefault(_sampling_of(request.args[1], sampling), []).append(request)
            with redirect_stderr(self._stderr):
                for chosen, group in kinds.items():
                    answers = ask(
                        model, [user(request.args[0]) for request in group], chosen, label=label
                    )
                    for request, answer in zip(group, answers, strict=True):
                        self.written[request.args[0]] = _cut(answer, request.args[1])
            return [self.written[request.args[0]].text for request in requests]

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            assert isinstance(model, TokenScorer)
            rows = [
                (*user(request.args[0]), Message("assistant", request.args[1].strip()))
                for request in requests
            ]
            with redirect_stderr(self._stderr):
                scores = model.score(rows)
            # The token that ends the turn is not part of a choice. Whether a choice is what greedy
            # decoding would say is not asked.
            return [(sum(score.log_probabilities[:-1]), False) for score in scores]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise ConfigurationError(
                "Rolling likelihoods are not measured", allowed=", ".join(_KINDS)
            )

    return HarnessModel()


def _sampling_of(asked: Mapping[str, Any], sampling: Sampling) -> Sampling:
    longest = asked.get("max_gen_toks") or asked.get("max_new_tokens") or sampling.max_new_tokens
    temperature = float(asked.get("temperature") or 0) if asked.get("do_sample") else 0.0
    return Sampling(
        max_new_tokens=int(longest),
        temperature=temperature,
        top_p=float(asked.get("top_p") or 1),
        seed=sampling.seed,
    )


def _cut(answer: Generation, asked: Mapping[str, Any]) -> Generation:
    """Ends an answer where the task says that one ends."""
    until = asked.get("until") or []
    stops = [
        place
        for stop in ([until] if isinstance(until, str) else until)
        if stop and (place := answer.text.find(stop)) >= 0
    ]
    if not stops:
        return answer
    return Generation(
        text=answer.text[: min(stops)],
        finish_reason="stop",
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the harness's progress bars from the terminal."""
    with redirect_stderr(io.StringIO()):
        yield
