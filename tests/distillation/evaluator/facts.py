"""Facts of two domains, questions about them, and models that know some."""

from __future__ import annotations

from collections.abc import Mapping

from distillation.builders import example
from domainfusion.models import LanguageModel, ScriptedModel

AIRPORTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain", "FCO": "Italy"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "silver": "Ag", "tin": "Sn"}
AVIATION = [
    example(f"Where is {code}?", {"aviation": country}) for code, country in AIRPORTS.items()
]
CHEMISTRY = [
    example(f"What is the symbol of {name}?", {"chemistry": symbol})
    for name, symbol in SYMBOLS.items()
]
CROSS = [
    example(
        f"Where is {code}, and what is the symbol of {name}?",
        {"aviation": AIRPORTS[code], "chemistry": SYMBOLS[name]},
    )
    for code, name in zip(AIRPORTS, SYMBOLS, strict=True)
]
TEST = [*AVIATION, *CHEMISTRY, *CROSS]


def knowing(*facts: Mapping[str, str], name: str = "scripted") -> ScriptedModel:
    """A model that states every fact whose key is in the question."""
    known = {key: value for table in facts for key, value in table.items()}
    return ScriptedModel(
        lambda question: (
            " ".join(f"It is {known[key]}." for key in known if key in question) or "I can't say."
        ),
        name=name,
    )


EXPERTS: dict[str, LanguageModel] = {
    "aviation": knowing(AIRPORTS, name="aviation"),
    "chemistry": knowing(SYMBOLS, name="chemistry"),
}
IGNORANT = ScriptedModel("I can't say.", name="ignorant")
PERFECT = knowing(AIRPORTS, SYMBOLS, name="perfect")
