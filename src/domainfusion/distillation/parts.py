"""What the parts of a distillation have to be, alone and to each other; refused before anything is
done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domainfusion.distillation.data_generation import DataGenerator, check_names
from domainfusion.errors import CapabilityError, ConfigurationError
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.training import distributed
from domainfusion.types import Example, domains_of


def check_parts(
    student: object,
    teachers: Mapping[str, LanguageModel],
    generators: Sequence[DataGenerator],
    shares: Mapping[str, float],
) -> None:
    """Refuses what can't be distilled.

    Args:
        student: The model to train.
        teachers: The expert of each domain.
        generators: The generators of the examples.
        shares: The shares of the examples that are held out, by the name of their parameter.

    Raises:
        ConfigurationError: There are no teachers or no generators, a domain is known to one side
            alone, or a share is none.
        CapabilityError: The student can't be trained, or a teacher can't answer.
    """
    _refuse_classes(
        {
            "student_model": student,
            **_entries("teacher_models", teachers),
            **_entries("data_generators", generators),
        }
    )
    if not isinstance(student, TrainableModel):
        raise CapabilityError(
            "The student can't be trained",
            received=student,
            allowed="a local model, such as LlamaModel(...)",
        )
    if not teachers:
        raise ConfigurationError(
            "There are no teachers", received=teachers, fix='give {"domain": model}'
        )
    if not isinstance(teachers, Mapping):
        raise ConfigurationError(
            "teacher_models names no domains",
            received=teachers,
            allowed="a dict from each domain to its expert",
            fix='write {"domain": model}',
        )
    check_names(teachers)
    for domain, teacher in teachers.items():
        if not isinstance(teacher, LanguageModel):
            raise CapabilityError(
                f"The teacher of {domain!r} can't answer",
                received=teacher,
                allowed="a model with generate(...)",
            )
    if not generators:
        raise ConfigurationError(
            "There are no data generators", received=generators, fix="give at least one"
        )
    if not isinstance(generators, Sequence) or isinstance(generators, str):
        raise ConfigurationError(
            "data_generators is not a list",
            received=generators,
            allowed="a list of data generators",
            fix="write [generator]",
        )
    for generator in generators:
        if not isinstance(generator, DataGenerator):
            raise ConfigurationError(
                "data_generators holds what is no data generator",
                received=generator,
                allowed="objects of DataGenerator's subclasses, such as CuratedDataGenerator(...)",
            )
    check_coverage(teachers, generators)
    check_shares(shares)


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuses shares to hold out that are none, or leave nothing to train on.

    Args:
        shares: The shares of the examples that are held out, by the name of their parameter.

    Raises:
        ConfigurationError: One is not a share, or their sum is 1 or more.
    """
    for name, share in shares.items():
        if not _is_number(share) or not 0 <= share < 1:
            raise ConfigurationError(
                f"{name} is not a share", received=share, allowed="a number from 0 to below 1"
            )
    if sum(shares.values()) >= 1:
        raise ConfigurationError(
            "Nothing would be left to train on",
            received=dict(shares),
            allowed="shares whose sum is below 1",
            field="validation_holdout" if shares.get("validation_holdout") else "holdout",
        )


def check_part(name: str, given: object, kind: type) -> None:
    """Refuses what is not of the kind that a parameter takes.

    Args:
        name: The parameter.
        given: What was given for it.
        kind: What it has to be an object of.

    Raises:
        ConfigurationError: It is a class, or of another kind.
    """
    _refuse_classes({name: given})
    if not isinstance(given, kind):
        raise ConfigurationError(
            f"{name} is of another kind",
            received=given,
            allowed=f"an object of {kind.__name__} or a subclass",
        )


def _entries(name: str, given: object) -> dict[str, object]:
    """Returns what a dict or a list holds, each with the words that lead to it."""
    if isinstance(given, Mapping):
        return {f"{name}[{key!r}]": value for key, value in given.items()}
    if isinstance(given, list | tuple):
        return {f"{name}[{place}]": value for place, value in enumerate(given)}
    return {name: given}


def _refuse_classes(parts: Mapping[str, object]) -> None:
    """Refuses a class where one of its objects is meant: it has the methods, and can't answer."""
    for name, given in parts.items():
        if isinstance(given, type):
            raise ConfigurationError(
                f"{name} is a class, not an object",
                received=given,
                allowed="an object",
                fix=f"write {given.__name__}(...)",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_coverage(
    teachers: Mapping[str, LanguageModel], generators: Sequence[DataGenerator]
) -> None:
    """Compares the domains of the teachers with those of the generators that name theirs.

    Raises:
        ConfigurationError: A domain is known to one side alone.
    """
    known = [generator.domains for generator in generators if generator.domains is not None]
    wanted = dict.fromkeys(name for domains in known for name in domains)
    homeless = [name for name in wanted if name not in teachers]
    if homeless:
        raise ConfigurationError(
            f"A generator makes examples of {homeless[0]!r}, which has no teacher",
            allowed=", ".join(teachers),
            fix="add its expert",
        )
    idle = [name for name in teachers if name not in wanted]
    if idle and len(known) == len(generators):
        raise ConfigurationError(
            f"No generator makes examples of {idle[0]!r}, so its teacher would never be asked",
            allowed=", ".join(wanted),
            fix="add the domain to a generator, or leave the teacher out",
        )


def check_refinement(
    rounds: int, generators: Sequence[DataGenerator], *, has_validation: bool
) -> None:
    """Refuses a refinement that could do nothing.

    Args:
        rounds: The most rounds; with 0, nothing else is looked at.
        generators: The generators of the examples.
        has_validation: Whether there are, or will be, validation examples.

    Raises:
        ConfigurationError: The number is negative, there is no validation, no generator can make
            more, or several processes train.
    """
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 0:
        raise ConfigurationError(
            "refinement_rounds is not a number of rounds",
            received=rounds,
            allowed="a whole number from 0",
        )
    if rounds == 0:
        return
    if not has_validation:
        fix = "give validation_examples, or validation_holdout=0.1"
        raise ConfigurationError(
            "Validation says where to refine, and there is none",
            received=f"refinement_rounds={rounds}",
            fix=fix,
            field="refinement_rounds",
        )
    if not any(generator.has_more for generator in generators):
        raise ConfigurationError(
            "No generator can make more examples for a refinement",
            received=[type(generator).__name__ for generator in generators],
            allowed=(
                "one that has_more, and of curated examples one that takes a part"
                " of them at first (num_examples)"
            ),
            fix="add a SyntheticDataGenerator, or leave refinement_rounds out",
            field="refinement_rounds",
        )
    if distributed.world_size() > 1:
        raise ConfigurationError(
            "A refinement runs in one process",
            received=f"{distributed.world_size()} processes",
            fix="start one, or leave refinement_rounds out",
        )


def check_teachers(examples: Sequence[Example], teachers: Mapping[str, LanguageModel]) -> None:
    """Raises a `ConfigurationError` where examples need a domain that has no teacher."""
    strange = [domain for domain in domains_of(examples) if domain not in teachers]
    if strange:
        raise ConfigurationError(
            f"Examples need the domain {strange[0]!r}, which has no teacher",
            allowed=", ".join(teachers),
            fix="add its expert",
        )
