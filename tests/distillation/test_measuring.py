from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from distillation.builders import example
from domainfusion.distillation.measuring import MOST_QUESTIONS, measure_savings
from domainfusion.models import LanguageModel, LlamaModel, LocalWeights, ScriptedModel
from domainfusion.models.store import Ask
from domainfusion.types import Example, Sampling

SHORT = Sampling(max_new_tokens=4)


@pytest.fixture
def experts(tiny_llama: Path, make_adapter: Callable[..., Path]) -> dict[str, LlamaModel]:
    return {
        name: LlamaModel(make_adapter(name, seed), base_model=tiny_llama)
        for seed, name in enumerate(("a", "b", "c"))
    }


def test_weights_that_experts_share_count_once(
    tiny_llama: Path, experts: dict[str, LlamaModel]
) -> None:
    base = LlamaModel(tiny_llama)
    found = measure_savings(base, experts, [example("How are you?", {"a": "well"})], SHORT)
    assert found is not None
    adapters = [model.parameter_count - base.parameter_count for model in experts.values()]
    assert all(count > 0 for count in adapters)
    assert found.student.parameters == base.parameter_count
    assert found.experts.parameters == base.parameter_count + sum(adapters)
    assert found.student.weight_bytes == 4 * base.parameter_count


def test_experts_on_bases_of_their_own_add_up(
    make_llama: Callable[..., Path], tiny_llama: Path
) -> None:
    base, other = LlamaModel(tiny_llama), LlamaModel(make_llama("other", 5))
    found = measure_savings(
        base, {"a": base, "b": other}, [example("How are you?", {"a": "well"})], SHORT
    )
    assert found is not None
    assert found.experts.parameters == base.parameter_count + other.parameter_count


def test_an_ensemble_is_asked_by_every_domain_of_a_question(
    tiny_llama: Path, experts: dict[str, LlamaModel]
) -> None:
    examples = [
        example(f"Question {number}?", {"a": "x", "b": "y"}) for number in range(5 * MOST_QUESTIONS)
    ]
    found = measure_savings(LlamaModel(tiny_llama), experts, examples, SHORT)
    assert found is not None
    assert found.questions == found.student.calls == MOST_QUESTIONS
    assert found.experts.calls == 2 * MOST_QUESTIONS
    assert 0 < found.student.completion_tokens <= 4 * MOST_QUESTIONS
    assert found.student.seconds > 0 and found.experts.tokens_per_second > 0


def test_models_that_are_elsewhere_are_not_compared(tiny_llama: Path) -> None:
    remote = ScriptedModel("well", name="remote")
    base = LlamaModel(tiny_llama)
    assert isinstance(base, LocalWeights) and not isinstance(remote, LocalWeights)
    assert (
        measure_savings(base, {"a": remote}, [example("How are you?", {"a": "well"})], SHORT)
        is None
    )
    assert remote.calls == []
    assert measure_savings(base, {"a": base}, [], SHORT) is None


def test_the_ensemble_is_timed_with_its_integrator(
    tiny_llama: Path, experts: dict[str, LlamaModel]
) -> None:
    """Each expert of a pair is asked, and the integrator once; its weights count too."""
    base, integrator = LlamaModel(tiny_llama), experts["c"]
    examples = [example(f"Question {number}?", {"a": "x", "b": "y"}) for number in range(4)]

    def answer(
        teachers: Mapping[str, LanguageModel],
        asked: Sequence[Example],
        sampling: Sampling,
        ask: Ask,
    ) -> object:
        for teacher in teachers.values():
            ask(teacher, [one.conversation for one in asked], sampling)
        return ask(integrator, [one.conversation for one in asked], sampling)

    two = {name: experts[name] for name in "ab"}
    found, bare = (
        measure_savings(base, two, examples, SHORT, answer),
        measure_savings(base, two, examples, SHORT),
    )
    assert found is not None and bare is not None
    assert (found.experts.calls, bare.experts.calls, found.student.calls) == (12, 8, 4)
    assert found.experts.parameters > bare.experts.parameters
    assert (found.integrated, bare.integrated) == (True, False)
    assert found.experts.seconds > 0


def test_an_integrator_that_runs_elsewhere_is_not_asked(
    tiny_llama: Path, experts: dict[str, LlamaModel]
) -> None:
    remote = ScriptedModel("both", name="remote")

    def answer(
        teachers: Mapping[str, LanguageModel],
        asked: Sequence[Example],
        sampling: Sampling,
        ask: Ask,
    ) -> object:
        return ask(remote, [one.conversation for one in asked], sampling)

    found = measure_savings(
        LlamaModel(tiny_llama), experts, [example("How are you?", {"a": "well"})], SHORT, answer
    )
    assert found is not None and not found.integrated
    assert remote.calls == [] and found.experts.calls == 1
