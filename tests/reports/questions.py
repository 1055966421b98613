"""Questions on aviation, chemistry and geography: of one domain, of two, of two hops, and at the
border between two.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from domainfusion.types import Example, Part


def rows(text: str) -> dict[str, tuple[str, ...]]:
    """Reads a table: a line a row, its key first."""
    split = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    return {key: tuple(values) for key, *values in split}


AIRPORTS = rows("""
    NRT | Japan | Tokyo
    CDG | France | Paris
    FRA | Germany | Frankfurt am Main
    LHR | United Kingdom | London
    BCN | Spain | Barcelona
    FCO | Italy | Rome
    VIE | Austria | Vienna
    ZRH | Switzerland | Zurich
    CPH | Denmark | Copenhagen
    ARN | Sweden | Stockholm
    HEL | Finland | Helsinki
    OTP | Romania | Bucharest
    YYC | Canada | Calgary
    GRU | Brazil | São Paulo
    ADD | Ethiopia | Addis Ababa
    ACC | Ghana | Accra
""")
ELEMENTS = rows("""
    tungsten | W | 74 | Spain
    gallium | Ga | 31 | France
    indium | In | 49 | Germany
    argon | Ar | 18 | United Kingdom
    lithium | Li | 3 | Sweden
    yttrium | Y | 39 | Finland
    nihonium | Nh | 113 | Japan
    tellurium | Te | 52 | Romania
    hafnium | Hf | 72 | Denmark
    technetium | Tc | 43 | Italy
    francium | Fr | 87 | France
    rhenium | Re | 75 | Germany
    holmium | Ho | 67 | Sweden
    krypton | Kr | 36 | United Kingdom
    iridium | Ir | 77 | United Kingdom
    zinc | Zn | 30 | Germany
""")
COUNTRIES = rows("""
    Japan | Tokyo | JPY | 81
    France | Paris | EUR | 33
    Germany | Berlin | EUR | 49
    United Kingdom | London | GBP | 44
    Spain | Madrid | EUR | 34
    Italy | Rome | EUR | 39
    Austria | Vienna | EUR | 43
    Switzerland | Bern | CHF | 41
    Denmark | Copenhagen | DKK | 45
    Sweden | Stockholm | SEK | 46
    Finland | Helsinki | EUR | 358
    Romania | Bucharest | RON | 40
    Canada | Ottawa | CAD | 1
    Brazil | Brasília | BRL | 55
    Ethiopia | Addis Ababa | ETB | 251
    Ghana | Accra | GHS | 233
""")

DOMAINS = ("aviation", "chemistry", "geography")
WRONG = {
    "aviation": "The plane landed in the United States.",
    "chemistry": "It is written as Au.",
    "geography": "Its capital is London.",
}


def single(query: str, domain: str, answers: tuple[str, ...]) -> Example:
    return Example(
        query=query,
        domains=(domain,),
        parts=(Part(domain=domain, answers=answers),),
        source="curated",
    )


def singles() -> list[Example]:
    aliases = {"United Kingdom": ("United Kingdom", "UK", "Great Britain")}
    found = []
    for code, (country, city) in AIRPORTS.items():
        found.append(
            single(
                f"A plane has just landed at {code}. What country is it in?",
                "aviation",
                aliases.get(country, (country,)),
            )
        )
        found.append(single(f"Which city's airport has the IATA code {code}?", "aviation", (city,)))
    for element, (symbol, number, country) in ELEMENTS.items():
        found.append(
            single(f"In a chemical formula, how is {element} written?", "chemistry", (symbol,))
        )
        found.append(
            single(f"How many protons are in the nucleus of {element}?", "chemistry", (number,))
        )
        found.append(
            single(
                f"Scientists of which country discovered {element}?",
                "chemistry",
                aliases.get(country, (country,)),
            )
        )
    for country, (capital, currency, calling_code) in COUNTRIES.items():
        found.append(
            single(f"Which city serves as the capital of {country}?", "geography", (capital,))
        )
        found.append(
            single(
                f"What money do I need in {country}, as a currency code?", "geography", (currency,)
            )
        )
        found.append(
            single(
                f"What prefix do I dial to phone someone in {country}?",
                "geography",
                (calling_code,),
            )
        )
    return found


def pairs(questions: Sequence[Example], number: int, seed: int = 3) -> list[Example]:
    draw = random.Random(seed)
    by_domain = {
        domain: [example for example in questions if example.primary_domain == domain]
        for domain in DOMAINS
    }
    combinations = [
        ("aviation", "chemistry"),
        ("aviation", "geography"),
        ("chemistry", "geography"),
    ]
    found = []
    for index in range(number):
        first, second = (draw.choice(by_domain[domain]) for domain in combinations[index % 3])
        found.append(
            Example(
                query=f"Please answer both. {first.query} {second.query}",
                domains=(first.primary_domain, second.primary_domain),
                parts=first.parts + second.parts,
                sub_questions={
                    first.primary_domain: first.query,
                    second.primary_domain: second.query,
                },
                source="curated",
            )
        )
    return found


def two_hops() -> list[Example]:
    return [
        Example(
            query=f"Which currency is used in the country of airport {code}?",
            domains=("aviation", "geography"),
            parts=(Part(domain="geography", answers=(COUNTRIES[country][1],)),),
            source="curated",
            metadata={"slice": "two-hop"},
        )
        for code, (country, _) in AIRPORTS.items()
    ]


def borders() -> list[Example]:
    """Questions that look like one domain and need another."""
    asked = [
        (
            "aviation",
            "geography",
            "I fly to Tokyo. What money do I need there, as a currency code?",
            "JPY",
        ),
        (
            "aviation",
            "geography",
            "My plane lands in Accra. What prefix do I dial to phone home from Italy?",
            "39",
        ),
        (
            "aviation",
            "chemistry",
            "Aircraft turbines hold rhenium. In a chemical formula, how is it written?",
            "Re",
        ),
        (
            "geography",
            "chemistry",
            "Germanium is named after Germany, and francium after France. How is francium written?",
            "Fr",
        ),
        (
            "geography",
            "aviation",
            "I am in Denmark's capital. Which city's airport has the IATA code CPH?",
            "Copenhagen",
        ),
        (
            "chemistry",
            "geography",
            "Ytterby gave its name to yttrium. Which city serves as the capital of Sweden?",
            "Stockholm",
        ),
    ]
    return [
        Example(
            query=query,
            domains=(needed,),
            apparent_domain=apparent,
            parts=(Part(domain=needed, answers=(answer,)),),
            source="adversarial",
        )
        for apparent, needed, query, answer in asked
    ]
