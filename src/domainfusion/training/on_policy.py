"""The objective `on_policy`: the student writes, and its prompt's teacher says at every token what
it would have found probable.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from domainfusion.errors import ConfigurationError, TrainingError
from domainfusion.models.base import TokenScorer, TrainableModel
from domainfusion.models.mixing import hidden_states_with
from domainfusion.models.projection import Head
from domainfusion.training.batching import Row, refuse_overlong
from domainfusion.training.distributed import mixed_precision
from domainfusion.training.distribution import TaughtObjective
from domainfusion.training.losses import Divergence
from domainfusion.training.objectives import Answers, Losses, Setting, Tally
from domainfusion.training.reading import Signal
from domainfusion.training.teaching import plan_teaching
from domainfusion.types import Sampling, fingerprint

logger = logging.getLogger("domainfusion")


class _Read(NamedTuple):
    """A row that the student wrote and its teacher read."""

    signal: Signal
    vocabulary: int


class OnPolicyObjective(TaughtObjective):
    """The divergence from the prompt's teacher over the whole vocabulary, at the tokens that the
    student itself writes.

    So the student learns where its own answers lead it (GKD, Agarwal et al., 2023, arXiv
    2306.13649; one teacher a prompt, as in MOPD, arXiv 2606.30406). The teacher of a cross-domain
    prompt is the integrator, shown the experts' responses, which the student never sees. Records
    whose teacher gives text alone are trained with cross-entropy on the target; the log counts
    them.

    On-policy learning needs a warm start: what a student far from its teacher writes teaches it
    nothing. A pilot measures KL(student‖ teacher) per token before each phase and refuses to start
    above `max_initial_kl`. It has worked from about 0.04 and collapsed from about 0.19 (arXiv
    2606.30406), so the default is in between.

    Args:
        divergence: See `TaughtObjective`, as for `beta` and `temperature`.
        beta: See there.
        temperature: See there; sampling has its own.
        max_new_tokens: Tokens after which what the student writes is cut; an answer that was cut is
            learned from up to there.
        sampling_temperature: How freely the student writes; 0 takes the most probable token.
        max_initial_kl: The highest KL per token, in nats, from which a phase starts; None starts
            from any.
        pilot_prompts: Prompts that the pilot looks at.

    Raises:
        ConfigurationError: A number is out of range or a word is not known.
    """

    def __init__(
        self,
        *,
        divergence: Divergence = "reverse_kl",
        beta: float | None = None,
        temperature: float = 1.0,
        max_new_tokens: int = 128,
        sampling_temperature: float = 1.0,
        max_initial_kl: float | None = 0.1,
        pilot_prompts: int = 32,
    ) -> None:
        super().__init__(divergence=divergence, beta=beta, temperature=temperature, alpha=1.0)
        for name, count in {
            "max_new_tokens": max_new_tokens,
            "pilot_prompts": pilot_prompts,
        }.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ConfigurationError(
                    f"{name} is not a positive number",
                    received=count,
                    allowed="a whole number from 1",
                )
        if not 0 <= sampling_temperature < float("inf"):
            allowed = "0 or a number above it"
            raise ConfigurationError(
                "sampling_temperature is out of range",
                received=sampling_temperature,
                allowed=allowed,
            )
        if max_initial_kl is not None and not max_initial_kl > 0:
            raise ConfigurationError(
                "max_initial_kl is out of range",
                received=max_initial_kl,
                allowed="a number above 0",
            )
        self.max_new_tokens = max_new_tokens
        self.sampling_temperature = sampling_temperature
        self.max_initial_kl = max_initial_kl
        self.pilot_prompts = pilot_prompts
        self._seed = 0
        self._heads: dict[str, Head] = {}
        self._narrow: dict[tuple[int, torch.device, torch.dtype | None], Head] = {}
        self._read: dict[Row, _Read] = {}

    def begin(self, setting: Setting) -> Mapping[str, Any]:
        """Finds who teaches what, and returns the counts.

        Raises:
            CapabilityError: Tokens of a teacher are not the student's, or no teacher says what is
                probable.
            TrainingError: A prompt with an answer of `max_new_tokens` does not fit student or
                teacher.
        """
        self._teaching = plan_teaching(setting, answer_tokens=self.max_new_tokens)
        longest = [
            replace(row, tokens=(*row.prompt, *row.lead, *(0,) * self.max_new_tokens))
            for row in self._teaching.lessons
        ]
        refuse_overlong(longest, setting.student.context_length)
        self._seed = setting.seed
        self._heads = self._shared_heads()
        return {"objective": "on_policy", **self._teaching.describe()}

    def _shared_heads(self) -> dict[str, Head]:
        """Returns each teacher's head; one object for all that have the same weights, so that their
        tokens are computed together.
        """
        heads: dict[str, Head] = {}
        same: dict[object, Head] = {}
        for teacher, model in self.teaching.models.items():
            head = model.head()
            heads[teacher] = same.setdefault(
                (head.weight.data_ptr(), head.weight.shape, head.scale, head.cap), head
            )
        return heads

    def begin_phase(self, student: TrainableModel, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Measures how far the student is from its teachers where it writes by itself.

        Raises:
            TrainingError: It is too far.
        """
        taught = [row for row in dict.fromkeys(rows) if row in self.teaching.lessons]
        if not taught:
            return {}
        chosen = random.Random(self._seed).sample(taught, min(self.pilot_prompts, len(taught)))
        tally = Tally()
        for start in range(0, len(chosen), 8):
            written = self.rows(chosen[start : start + 8], -1, student)
            tally.add(written, self._measure(student, written).terms)
        found = tally.take()
        kl = found["terms"]["reverse_kl"]
        logger.info(
            "On-policy pilot: KL(student‖teacher) is %.4f a token on %d prompts.", kl, len(chosen)
        )
        if self.max_initial_kl is not None and not kl <= self.max_initial_kl:
            raise TrainingError(
                "The student is too far from its teachers to learn from what it writes:"
                " KL(student‖teacher) per token",
                received={
                    "all": round(kl, 4),
                    **{name: round(own["reverse_kl"], 4) for name, own in found["domains"].items()},
                },
                allowed=f"up to max_initial_kl={self.max_initial_kl:g}",
                fix=(
                    "start nearer: from the experts' merge (initialization='merge'), or from a"
                    " student that objective='sequence' or 'distribution' has trained and save()"
                    " has written; or raise max_initial_kl"
                ),
            )
        return {
            "pilot": {
                "prompts": len(chosen),
                "max_initial_kl": self.max_initial_kl,
                "domains": found["domains"],
                "kl": kl,
            }
        }

    def _measure(self, student: TrainableModel, rows: Sequence[Row]) -> Losses:
        """Returns the reverse KL at the tokens of rows that were written and read."""
        assert isinstance(student, TokenScorer)
        states = student.hidden_states([row.tokens for row in rows])
        hidden = torch.cat(
            [found[row.prompt_length - 1 : -1] for found, row in zip(states, rows, strict=True)]
        )
        targets = torch.tensor(
            [token for row in rows for token in row.answer], device=hidden.device
        )
        plain = copy(self)
        plain.divergence, plain.temperature = "reverse_kl", 1.0
        with torch.no_grad():
            return plain.losses(
                Answers(
                    hidden,
                    student.head(),
                    targets,
                    torch.ones(len(targets), device=hidden.device),
                    tuple(rows),
                )
            )

    def rows(self, rows: Sequence[Row], step: int, student: TrainableModel) -> Sequence[Row]:
        """Lets the student write and its teachers read; rows that nobody teaches stay as they
        are.
        """
        taught = [place for place, row in enumerate(rows) if row in self.teaching.lessons]
        sampling = Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.sampling_temperature
        )
        seeds = self._seeds([rows[place].record_id for place in taught], step)
        with mixed_precision(student.device):
            prompts = [(*rows[place].prompt, *rows[place].lead) for place in taught]
            answers = student.continuations(prompts, sampling, seeds)
        written = list(rows)
        for place, prompt, answer in zip(taught, prompts, answers, strict=True):
            written[place] = replace(rows[place], tokens=(*prompt, *answer))
        self._let_read([(rows[place], written[place]) for place in taught])
        return written

    def _seeds(self, records: Sequence[str], step: int) -> list[int]:
        """Returns the seed of each row, which follows from step, record, and how often that came
        before: not from who stands beside it.
        """
        repeats, seeds = Counter[str](), []
        for record in records:
            seeds.append(
                int(fingerprint([self._seed, step, record, repeats[record]], length=15), 16)
            )
            repeats[record] += 1
        return seeds

    def _let_read(self, pairs: Sequence[tuple[Row, Row]]) -> None:
        """Lets each row's teacher read what the student wrote in its place."""
        lessons = [self.teaching.lessons[row] for row, _ in pairs]
        models = [self.teaching.models[lesson.teacher] for lesson in lessons]
        texts = [
            (*lesson.prompt, *written.answer)
            for lesson, (_, written) in zip(lessons, pairs, strict=True)
        ]
        states = hidden_states_with(models, texts)
        self._read = {}
        for (row, written), lesson, hidden in zip(pairs, lessons, states, strict=True):
            signal = Signal(hidden[len(lesson.prompt) - 1 : -1], self._heads[lesson.teacher])
            self._read[written] = _Read(signal, self.teaching.vocabulary_of(row))

    def signal_of(self, row: Row, device: torch.device, dtype: torch.dtype | None) -> Signal | None:
        """Returns what the row's teacher read in this step."""
        if row not in self._read:
            return None
        signal = self._read[row].signal
        return signal._replace(head=self._head(signal.head, device, dtype))

    def _head(self, head: Head, device: torch.device, dtype: torch.dtype | None) -> Head:
        wanted = (id(head), device, dtype)
        if wanted not in self._narrow:
            self._narrow[wanted] = head.to(device, dtype)
        return self._narrow[wanted]

    def vocabulary_of(self, row: Row) -> int:
        """Returns how many token ids a row's teacher shares with the student; 0 where it has
        none.
        """
        return self._read[row].vocabulary if row in self._read else 0
