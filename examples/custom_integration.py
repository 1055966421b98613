"""Extension point 5: an integration strategy of your own, here one that says who said what."""

from __future__ import annotations

from collections.abc import Mapping

from domainfusion.distillation import ResponseIntegrator
from domainfusion.distillation.metrics import normalize
from domainfusion.types import Contribution, Dropped, Integration, Ledger, Response

QUERY = "How can sprinters recover between races?"
RESPONSES = {
    "biomechanics": "Land softly on the way out of the blocks.",
    "physiology": "Jog easily for ten minutes.",
    "nutrition": "Eat carbohydrates within 30 minutes.",
    "coaching": "Jog easily for ten minutes.",
}


def attributed(query: str, responses: Mapping[str, Response]) -> Integration:
    """Puts every expert's words after its name; an expert who only repeats another is left out, and
    the ledger says so.

    A strategy may return the text alone. With a ledger, reports can show where each word of the
    answer came from.
    """
    text, contributions, dropped = "", [], []
    said: set[str] = set()
    for domain, response in responses.items():
        if normalize(response.text) in said:
            dropped.append(Dropped(domain=domain, text=response.text, reason="said before"))
            continue
        said.add(normalize(response.text))
        text += f"{domain.capitalize()}: "
        contributions.append(
            Contribution(
                domain=domain,
                text=response.text,
                start=len(text),
                end=len(text) + len(response.text),
            )
        )
        text += f"{response.text}\n"
    ledger = Ledger(contributions=tuple(contributions), dropped=tuple(dropped))
    return Integration(text=text.strip(), method="attributed", ledger=ledger)


def main() -> None:
    integrator = ResponseIntegrator(
        strategy=attributed
    )  # Distiller(..., integrator=integrator) uses it in a run
    answer = integrator.integrate(QUERY, RESPONSES, primary_domain="physiology")
    print(f"{QUERY}\n\n{answer}\n")
    for left_out in answer.ledger.dropped:
        print(f"left out: {left_out.domain} ({left_out.reason})")


if __name__ == "__main__":
    main()
