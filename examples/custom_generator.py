"""Extension point 1: a data generator of your own, here one that asks for what stands in a
table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from domainfusion.distillation import DataGenerator
from domainfusion.models import Ask, ask_directly
from domainfusion.types import Example, Part

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi"}
DIALLING_CODES = {"France": "+33", "Japan": "+81", "Kenya": "+254"}


class TableGenerator(DataGenerator):
    """Asks for each row of two tables, and once for both together."""

    def __init__(self, geography: Mapping[str, str], telephony: Mapping[str, str]) -> None:
        # A run is resumed where its inputs are the same: whatever decides the examples is kept
        # under a name without underscore.
        self.geography = dict(geography)
        self.telephony = dict(telephony)

    def generate(self, ask: Ask = ask_directly) -> Iterable[Example]:
        """Yields the examples. A generator that needs a model calls it through `ask`, which keeps
        the answers.
        """
        for country, capital in self.geography.items():
            question = f"What is the capital of {country}?"
            yield Example(
                query=question,
                domains=("geography",),
                parts=(Part(domain="geography", answers=(capital,)),),
                group=country,
            )
        for country in self.geography.keys() & self.telephony.keys():
            yield self._both(country)

    def _both(self, country: str) -> Example:
        return Example(
            query=f"What are the capital and the dialling code of {country}?",
            domains=("geography", "telephony"),
            # Each expert is asked its own part; the student learns to answer the whole.
            sub_questions={
                "geography": f"What is the capital of {country}?",
                "telephony": f"What is the dialling code of {country}?",
            },
            parts=(
                Part(domain="geography", answers=(self.geography[country],)),
                Part(domain="telephony", answers=(self.telephony[country],)),
            ),
            group=country,  # train and test never share a group
        )


def main() -> None:
    for example in TableGenerator(CAPITALS, DIALLING_CODES).generate():
        print(f"{' + '.join(example.domains):24}{example.query}")


if __name__ == "__main__":
    main()
