"""Asking again until a target holds: what is saved, whom it asks, and that a resumed run makes the
same targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import example, grouped
from domainfusion.distillation import CuratedDataGenerator, Distiller, IntegrationTrainer
from domainfusion.distillation.outcomes import integrated
from domainfusion.distillation.targets import read_samples
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import LanguageModel, LlamaModel, ResponseStore, ScriptedModel
from domainfusion.models.base import SAMPLE_STRIDE, OnResult, sample_seeds
from domainfusion.records import read_records
from domainfusion.reports import RunSummary, render_markdown
from domainfusion.types import Conversation, Generation, Sampling, TrainingRecord

FACTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain"}
EXAMPLES = [example(f"Where is {code}?", {"aviation": place}) for code, place in FACTS.items()]
PAIR = example(
    "Where is NRT, and what is the symbol of tin?", {"aviation": "Japan", "chemistry": "Sn"}
)
GREEDY, DRAWN = Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, temperature=1.0)


class Drawing(ScriptedModel):
    """Is right from its `right_from`-th answer to a question on, the first one included.

    Args:
        right_from: The answer, from 1, that is right.
        most: Answers after which it breaks down.
    """

    def __init__(self, right_from: int, *, name: str = "aviation", most: int = 1000) -> None:
        super().__init__("", name=name)
        self.right_from = right_from
        self.left = most

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        answers = []
        for place, seed in enumerate(sample_seeds(sampling.seed, conversations)):
            if not self.left:
                raise ModelError("The server broke down")
            self.left -= 1
            self.calls.append(conversations[place])
            number = seed // SAMPLE_STRIDE + 1
            # The greedy answer is the first of all; those drawn after it are counted from 1.
            number += self.first_is_greedy and sampling.temperature > 0
            question = conversations[place][-1].content
            right = next(value for key, value in FACTS.items() if key in question)
            answers.append(
                Generation(text=f"It is {right if number >= self.right_from else 'Atlantis'}.")
            )
            if on_result is not None:
                on_result(place, answers[-1])
        return answers

    first_is_greedy = True


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> LlamaModel:
    return LlamaModel(tiny_llama, dtype="float32")


def distiller(base: LlamaModel, directory: Path, aviation: Drawing, **settings: Any) -> Distiller:
    aviation.first_is_greedy = settings.get("response_sampling", GREEDY).temperature == 0
    given = {"response_sampling": GREEDY, **settings}
    examples = given.pop("examples", EXAMPLES)
    teachers: dict[str, LanguageModel] = {"aviation": aviation}
    if any("chemistry" in each.domains for each in examples):
        teachers["chemistry"] = ScriptedModel("It is Sn.", name="chemistry")
    return Distiller(
        base,
        teachers,
        [CuratedDataGenerator(examples)],
        IntegrationTrainer(),
        output_dir=directory,
        progress=None,
        **grouped(**given),
    )


def records_of(run: Distiller) -> list[TrainingRecord]:
    return run.integrate(run.collect(run.generate()))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("right_from", [1, 2, 4])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_a_target_is_saved_where_one_of_so_many_answers_is_right(
    base: LlamaModel, tmp_path: Path, sampling: Sampling, right_from: int, samples: int
) -> None:
    aviation = Drawing(right_from)
    run = distiller(base, tmp_path / "run", aviation, samples=samples, response_sampling=sampling)
    records = records_of(run)
    is_right = right_from <= samples
    assert {record.verification for record in records} == {"verified" if is_right else "rejected"}
    asked = min(right_from, samples)
    assert len(aviation.calls) == len(EXAMPLES) * asked
    with ResponseStore(tmp_path / "run" / "responses.sqlite", read_only=True) as store:
        assert len(store) == len(EXAMPLES) * asked
    targets = read_samples(run._run)
    assert len(targets) == (len(EXAMPLES) if asked > 1 else 0)
    assert all(target.is_saved is is_right for target in targets)
    assert all(target.answers == asked - 1 for target in targets)


def test_only_the_expert_that_a_rejection_is_due_to_is_asked_again(
    base: LlamaModel, tmp_path: Path
) -> None:
    run = distiller(base, tmp_path / "run", Drawing(3), samples=3, examples=[PAIR])
    (record,) = records_of(run)
    assert record.verification == "verified"
    chemistry = run.teacher_models["chemistry"]
    assert isinstance(chemistry, ScriptedModel)
    assert len(chemistry.calls) == 1
    assert read_samples(run._run)[0].replaced == ("aviation",)


def test_one_answer_leaves_every_file_as_it_was(base: LlamaModel, tmp_path: Path) -> None:
    names = ("records.jsonl", "examples.jsonl")
    for name, settings in (("plain", {}), ("one", {"samples": 1})):
        run = distiller(base, tmp_path / name, Drawing(2), **settings)
        records_of(run)
        assert not (tmp_path / name / "samples.json").exists()
        assert "samples" not in run._parts.inputs(date=None)
    for name in names:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("most", range(3, 9))
def test_a_run_that_was_interrupted_makes_the_same_targets_and_asks_nothing_twice(
    base: LlamaModel, tmp_path: Path, most: int
) -> None:
    whole = distiller(base, tmp_path / "whole", Drawing(3), samples=3)
    records_of(whole)
    broken = Drawing(3, most=most)
    with pytest.raises(ModelError):
        records_of(distiller(base, tmp_path / "run", broken, samples=3))
    mended = Drawing(3)
    records_of(distiller(base, tmp_path / "run", mended, samples=3))
    assert len(broken.calls) + len(mended.calls) == 3 * len(EXAMPLES)
    for name in ("records.jsonl", "samples.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = Drawing(3)
    records_of(distiller(base, tmp_path / "run", again, samples=3))
    assert not again.calls


def test_two_examples_with_one_question_share_the_further_answer(
    base: LlamaModel, tmp_path: Path
) -> None:
    twins = [
        example(
            f"Where is NRT, and {rest}?",
            {"aviation": "Japan", "chemistry": "Sn"},
            sub_questions={"aviation": "Where is NRT?", "chemistry": rest},
        )
        for rest in ("what is the symbol of tin", "which element is a soft metal used for cans")
    ]
    aviation = Drawing(2)
    run = distiller(base, tmp_path / "run", aviation, samples=3, examples=twins)
    assert {record.verification for record in records_of(run)} == {"verified"}
    assert len(aviation.calls) == 2


def test_what_was_saved_is_said_in_the_outcome_and_the_report(
    base: LlamaModel, tmp_path: Path
) -> None:
    run = distiller(base, tmp_path / "run", Drawing(2), samples=2)
    records = records_of(run)
    told = integrated(records, read_samples(run._run))
    assert "3 of 3 rejected targets saved by further answers" in told
    markdown = render_markdown(RunSummary.read(tmp_path / "run"))
    assert "3 of 3 rejected targets" in markdown
    assert len(read_records(run._run.records, TrainingRecord)) == len(EXAMPLES)


@pytest.mark.parametrize("samples", [0, -1, 1.5, "3", True, 101])
def test_a_number_that_can_not_be_is_one_clear_error(
    base: LlamaModel, tmp_path: Path, samples: Any
) -> None:
    with pytest.raises(ConfigurationError, match="samples"):
        distiller(base, tmp_path / "run", Drawing(1), samples=samples)
