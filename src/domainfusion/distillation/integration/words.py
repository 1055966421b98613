"""Values and words of a sentence: quantities, dates and names, and whether two of them can both be
right; which words carry meaning, which name two ends of an opposition, and which deny.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from domainfusion.distillation.text.quantities import Quantity as Quantity
from domainfusion.distillation.text.quantities import read_quantities
from domainfusion.distillation.text.words import FUNCTION_WORDS, MONTHS, fold, word_set

EMPTY = FUNCTION_WORDS | word_set("""
    above actually all also am answer any around because being believe both but certainly
    correct correctly definitely doing done down each else ever every exactly fact far get gets
    guess having he her here hers him his however indeed itself just know known let like may
    maybe might more most much must no nor not off once only other out over own per perhaps
    please probably quite rather really recall remember right roughly same she short simply
    some still such suppose sure than them then think through too truly under understand until
    up upon us very well whether while within yes yet
""")
"""Words that say nothing about what a sentence of an answer is about: beside the function words, what
speakers say of themselves and of how sure they are.
"""

EMPTY_ELSEWHERE = word_set("""
    der die das ein eine einen einem einer eines ist sind war wird werden wurde und oder in im am an auf fur mit von vom zu zum zur den
    dem des muss mussen sollte sollten soll kann konnen darf durfen es sie er nach vor bei pro als auch so man sich ihre ihr
    el la los las un una unos unas es son de del en y o a al con por para se su sus que debe deben puede pueden mas cada lo
    le les une est sont du des et ou au aux avec par pour ce cette ces il elle on doit doivent peut peuvent etre faut dans sur plus l d qu
""")
"""The same in German, Spanish and French, without accents."""
IRREGULAR = {
    "given": "give", "gave": "give", "taken": "take", "took": "take", "held": "hold", "kept": "keep", "paid": "pay", "made": "make",
    "built": "build", "sold": "sell", "bought": "buy", "lost": "lose", "left": "leave", "written": "write", "wrote": "write",
    "shown": "show", "known": "know", "fed": "feed", "led": "lead", "ran": "run", "came": "come", "went": "go", "found": "find",
    "children": "child", "women": "woman", "men": "man", "daily": "day", "nightly": "night", "yearly": "year", "worn": "wear",
    "stored": "store", "storing": "store",
}  # fmt: skip
"""Forms whose ending does not tell what they are forms of."""

NEGATIONS = word_set("not never no cannot neither nor none nobody nothing nowhere hardly")
MYTHS = word_set("myth misconception")
DENIED = {
    "forbidden": "allow",
    "prohibited": "allow",
    "banned": "allow",
    "false": "true",
    "unable": "able",
}
"""What denies another word by itself, and the stem of that word."""

POINTING = word_set("it he she they this that these those its their his her")
"""Words that stand for what was asked about."""

MEASURES = word_set("""
    age altitude amount area boiling code capacity count cost degree density depth diameter distance duration elevation freezing
    frequency height length lifespan mass melting number percentage period population power pressure price radius rate share size speed
    temperature thickness time value velocity voltage volume weight width wavelength
""")
"""What a question that wants a number asks for."""

JOINING = word_set("of de da do di du van von der den la le el al bin y")
"""Words without a capital inside of a name."""
GENERIC = word_set("""
    city island islands river mount mountain lake sea ocean state states republic kingdom federation union democratic people's saint st sir
    dr mr mrs ms king queen president
""")
"""Words in a name that don't tell whose it is."""
OPPOSED = word_set(
    "north south east west northern southern eastern western new old upper lower inner outer"
)
"""Words that tell two names apart that end alike."""


Verdict = Literal["same", "different", "unrelated"]
"""How two values, or two claims, stand to each other."""

# Months in full in any of the languages above, or an English abbreviation with or without a point.
_MONTH = (
    r"(?P<month>(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\b\.?|"
    + "|".join(map(str.title, MONTHS))
    + ")"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
# The era after a year: "44 BC".
_ERA = r"(?P<era>\s?(?:BCE?|AD|CE)\b)?"
# Most exact first, as what one pattern takes is not read by the next: 2024-03-01; 1 March 2024; March
# 1, 2024; March 2024; 1.3.2024; 1/3/2024; a year after "in", "since" … that is not a quantity; a year
# with its era; and an answer that is a year alone.
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w-])(?P<year>\d{4})-(?P<number>\d{2})-(?P<day>\d{2})(?![\w-])",
        rf"(?<!\w){_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+(?P<year>\d{{3,4}})\b{_ERA})?",
        rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}\b(?:,?\s+(?P<year>\d{{3,4}})\b{_ERA})?",
        rf"\b{_MONTH}(?:\s+of)?,?\s+(?P<year>\d{{3,4}})\b{_ERA}",
        r"(?<![\w.])(?P<day>\d{1,2})\.\s?(?P<number>\d{1,2})\.\s?(?P<year>\d{4})(?!\w)",
        r"(?<![\w/])(?P<day>\d{1,2})/(?P<number>\d{1,2})/(?P<year>\d{4})(?!\w)",
        r"(?i:(?<=\bin )|(?<=\bsince )|(?<=\buntil )|(?<=\bduring )|(?<=\byear )|(?<=\bearly"
        r" )|(?<=\blate )|(?<=\())"
        r"(?P<year>[12]\d{3})(?![\d,.%°]*[\w%°])(?!\s?-?\s?\d)",
        r"(?<![\w.,])(?P<year>\d{1,4})(?P<era>\s?(?:BCE?|AD|CE)\b)",
        r"\A\W*(?P<year>1\d{3}|20\d{2})\W*\Z",
    )
)

_DIGIT = re.compile(r"\d")  # which every date has
_LEAST_STEM = 5
# A word; marks such as an apostrophe, a hyphen or a point may stand inside.
_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
# A name that may be the initials of a longer one: UNESCO, EU.
_INITIALS = re.compile(r"[A-Z]{2,5}")


@dataclass(frozen=True, slots=True)
class Date:
    """A date, as precisely as it is said.

    Attributes:
        year: Negative before Christ; None where it is not said.
        month: From 1; None where it is not said.
        day: From 1; None where it is not said.
    """

    year: int | None
    month: int | None
    day: int | None


@dataclass(frozen=True, slots=True)
class Name:
    """Capitalised words in a row.

    Attributes:
        text: As it is written.
        words: Its words without case, accents and prepositions.
        is_initial: Whether it is the first word of its sentence by itself, so that its capital says
            nothing.
    """

    text: str
    words: tuple[str, ...]
    is_initial: bool = False


Value = Quantity | Date | Name


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it stands."""

    value: Value
    start: int
    end: int


def find_values(sentence: str) -> list[Found]:
    """Returns the dates, quantities and names of a sentence, in order; what is part of one is not
    part of another.

    Example:
        >>> [type(found.value).__name__ for found in find_values("Apollo 11 flew 384,400 km on 20 July 1969.")]
        ['Name', 'Quantity', 'Quantity', 'Date']
    """
    found: list[Found] = []
    rest = sentence
    for finder in (_find_dates, _find_quantities, _find_names):
        new = list(finder(rest))
        found += new
        for item in new:
            rest = rest[: item.start] + "\0" * (item.end - item.start) + rest[item.end :]
    return sorted(found, key=lambda item: item.start)


def compare(first: Value, second: Value) -> Verdict:
    """Whether two values can both be right of one thing; values of two kinds have nothing to
    do with each other.

    Two quantities are the same where one, as it was written and rounded, allows the other, in
    whatever unit. Two dates are the same where all that both say is. Two names are the same where
    one is a part, the initials or the short form of the other.

    Example:
        >>> mph, kmh, slow = (find_values(text)[0].value for text in ("44.74 mph", "72 km/h", "50.4 km/h"))
        >>> compare(mph, kmh), compare(slow, kmh)
        ('same', 'different')
    """
    if isinstance(first, Quantity) and isinstance(second, Quantity):
        if first.dimension != second.dimension:
            return "unrelated"
        return "same" if _allows(first, second) or _allows(second, first) else "different"
    if isinstance(first, Date) and isinstance(second, Date):
        pairs = ((first.year, second.year), (first.month, second.month), (first.day, second.day))
        both = [one == other for one, other in pairs if one is not None and other is not None]
        return "unrelated" if not both else "same" if all(both) else "different"
    if isinstance(first, Name) and isinstance(second, Name):
        return "same" if _is_same_name(first, second) else "different"
    return "unrelated"


def says_no_more(value: Value, other: Value) -> bool:
    """Whether a value says nothing that another one does not say as precisely, as June 1944 beside
    6 June 1944.
    """
    if isinstance(value, Quantity) and isinstance(other, Quantity):
        return (
            value.dimension == other.dimension and _allows(value, other) and _allows(other, value)
        )
    if isinstance(value, Date) and isinstance(other, Date):
        pairs = ((value.year, other.year), (value.month, other.month), (value.day, other.day))
        return all(one is None or one == another for one, another in pairs)
    return compare(value, other) == "same"


def _allows(wide: Quantity, narrow: Quantity) -> bool:
    slack = 1e-9 * max(abs(wide.middle), abs(narrow.middle), 1e-30)
    return wide.low - slack <= narrow.middle <= wide.high + slack


def _find_dates(sentence: str) -> Iterator[Found]:
    if not _DIGIT.search(sentence):
        return
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(sentence):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            said = match.groupdict()
            year = int(said["year"]) if said.get("year") else None
            if year is not None and (said.get("era") or "").strip().startswith("BC"):
                year = -year
            month = _month_of(said)
            day = int(said["day"]) if said.get("day") else None
            if "/" in match.group() and day is not None and month is not None and day <= 12:
                day, month = (
                    (month, day) if month > 12 else (None, None)
                )  # of 3/4/2020, no one knows which is which
            if (month is not None and not 1 <= month <= 12) or (
                day is not None and not 1 <= day <= 31
            ):
                continue
            taken.append((match.start(), match.end()))
            yield Found(Date(year, month, day), match.start(), match.end())


def _month_of(said: dict[str, str | None]) -> int | None:
    if said.get("number"):
        return int(said["number"] or 0)
    if not said.get("month"):
        return None
    beginning = (said["month"] or "")[:3].casefold()
    return next(number for number, name in enumerate(MONTHS, start=1) if name.startswith(beginning))


def _find_quantities(sentence: str) -> Iterator[Found]:
    for stated in read_quantities(sentence):
        if stated.kind != "ordinal":
            yield Found(stated.quantity, stated.start, stated.end)


def _find_names(sentence: str) -> Iterator[Found]:
    words = list(_WORD.finditer(sentence))
    index = 0
    while index < len(words):
        if not _is_capital(words[index].group()):
            index += 1
            continue
        last = index
        following = index + 1
        while following < len(words) and _adjoins(sentence, words[following - 1], words[following]):
            word = words[following].group()
            if _is_capital(word):
                last = following
            elif word not in JOINING:
                break
            following += 1
        text = sentence[words[index].start() : words[last].end()]
        is_initial = (
            index == 0 == last
            and text[1:] == text[1:].lower()
            and not any(character.isdigit() for character in text)
        )
        if text != "I":
            yield Found(_name(text, is_initial), words[index].start(), words[last].end())
        index = last + 1


def _is_capital(word: str) -> bool:
    return word[0].isupper()


def _adjoins(sentence: str, left: re.Match[str], right: re.Match[str]) -> bool:
    between = sentence[left.end() : right.start()]
    return between == " " or (between == ". " and len(left.group()) <= 2)


def _name(text: str, is_initial: bool) -> Name:
    words = tuple(fold(word).replace(".", "") for word in _WORD.findall(text))
    words = tuple(word.removesuffix("'s") for word in words)
    return Name(text, tuple(word for word in words if word not in JOINING), is_initial)


def _is_same_name(first: Name, second: Name) -> bool:
    if _is_initials(first, second) or _is_initials(second, first):
        return True
    one, other = (_without_generic(name.words) for name in (first, second))
    if not one or not other:
        return first.words == second.words
    if set(one) <= set(other) or set(other) <= set(one):
        return not _are_opposed(one, other) or one == other
    if one[-1] == other[-1]:
        return not _are_opposed(one, other)
    is_long = len(one) < len(first.words) or len(other) < len(second.words)
    short, long = sorted((one[-1], other[-1]), key=len)
    return (
        is_long
        and len(one) == len(other) == 1
        and len(short) >= _LEAST_STEM
        and long.startswith(short)
    )


def _without_generic(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in GENERIC)


def _are_opposed(one: Sequence[str], other: Sequence[str]) -> bool:
    sides = (set(one) & OPPOSED, set(other) & OPPOSED)
    return sides[0] != sides[1] and all(sides)


def _is_initials(short: Name, long: Name) -> bool:
    plain = short.text.replace(".", "")
    if not _INITIALS.fullmatch(plain) or len(long.words) < 2:
        return False
    initials = "".join(word[0] for word in long.words).upper()
    return len(initials) > 1 and (plain.startswith(initials) or initials.startswith(plain))


_AXES = """
    level: increas* rais* rise rises risen rising rose boost* elevat* heighten* climb* grow* grew higher more upward |
           decreas* lower* reduc* drop* fall falls fallen falling fell declin* diminish* shrink* fewer less downward
    level: erhoh* steiger* steig* hebt anheb* vermehr* hoher* mehr | senk* verringer* reduzier* minder* sink* fallt niedrig* weniger
    level: aument* sube suben subir eleva elevan increment* | disminuy* baja bajan bajar reduce reducen reducir
    level: augment* eleve elevent accro* monte montent monter hausse | baisse baissent baisser diminu* reduit reduisent
    speed: accelerat* faster quicker speed* hasten* beschleunig* schneller aceler* rapid* accele* vite |
           decelerat* slower slow slows slowed slowing delay* verlangsam* langsamer ralentiz* ralenti* lent*
    length: lengthen* longer prolong* extend* verlanger* alarg* allong* | shorten* shorter verkurz* acort* raccourci*
    force: strengthen* stronger starkt starken fortalec* renforc* | weaken* weaker schwach* debilit* affaibli*
    worth: improv* help* benefit* better enhanc* verbesser* hilft mejor* amelior* |
           worsen* impair* harm harms harming harmed hurt* worse damag* verschlechter* schade* empeor* aggrav*
    safety: safe safely harmless unbedenklich ungefahrlich segur* inocuo inoffensif |
            unsafe dangerous harmful toxic hazardous risky unsicher gefahrlich* giftig inseguro peligros* danger*
    permission: legal legally lawful allow* permit* erlaubt zulassig permitid* permis autoris* |
                illegal* unlawful forbid* forbidden prohibit* banned verboten unzulassig prohibid* interdit*
    tax: tax-free untaxed exempt steuerfrei* exent* exonere* | taxed taxable steuerpflichtig* gravad* impos*
    heat: warm* hot hotter heat* warmer caliente* chaud* | cold* cool* kalt* frio* froid*
    stiffness: stiff* hard harder harden* steif* | soft* weich*
    possibility: possible moglich posible | impossible unmoglich imposible
    duty: mandatory compulsory obligatory required pflicht obligatori* obligatoire* | optional voluntary freiwillig opcional* facultati*
    order: before prior vor vorher antes avant | after afterwards nach nachher despues apres
    time: early earlier fruher temprano tot | late later spater tarde tard
    price: cheap* inexpensive billig* barat* | expensive costly dear* teuer* caro* cher*
    state: enabl* opened | disabl* closed
    acidity: acidic acid sauer saure* acido* acide* | alkaline alkalin* basisch* alcalin*
    validity: valid enforceable gultig* valido valida valable* | void invalid unenforceable ungultig* nichtig*
    content: contain* enthalt* contien* | lactose-free gluten-free sugar-free
    rotation: clockwise | counterclockwise counter-clockwise anticlockwise anti-clockwise
"""
"""Kinds of opposition, each with its two ends; a star stands for any ending, and accents are left
out.
"""

_CJK_AXES = (
    ("level", ("提高", "增加", "升高", "上升", "增强"), ("降低", "减少", "下降", "减轻", "减弱")),
    ("speed", ("加快", "加速"), ("减慢", "减缓", "延缓")),
    ("safety", ("安全", "无害"), ("危险", "有害")),
    ("worth", ("改善", "有益", "有利"), ("恶化", "损害", "有害", "不利")),
    ("permission", ("允许", "合法"), ("禁止", "违法", "非法")),
    ("order", ("之前", "以前"), ("之后", "以后")),
)
# Phrases of two words, with the scale that they move along and in which direction.
_PHRASES = (
    (
        re.compile(r"\b(?:push|go|bring|drive|move|send)(?:es|s|ing)? up\b|\bfait monter\b"),
        ("level", 1),
    ),
    (
        re.compile(r"\b(?:push|go|bring|drive|move|send)(?:es|s|ing)? down\b|\bfait baisser\b"),
        ("level", -1),
    ),
    (re.compile(r"\bspeed(?:s|ing)? up\b"), ("speed", 1)),
    (re.compile(r"\bslow(?:s|ing|ed)? down\b"), ("speed", -1)),
    (re.compile(r"\b(?:free of|exempt from) (?:\w+ )?tax\b|\btax[- ]free\b"), ("tax", 1)),
    (re.compile(r"\bfree (?:of|from)(?! charge)\b|\bfrei von\b|\blibre de\b"), ("content", -1)),
)

# Letters with hyphens inside, as the ends of oppositions are listed: tax-free.
_AXIS_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
# Words of negation in English, German, Spanish, French, Italian and Portuguese, folded.
_NEGATION = re.compile(
    r"""
    \b(?: not | never | cannot | neither | nor | none | nobody | nothing | nowhere | no | hardly | \w+n['’]t
      | nicht | kein(?:e[nmrs]?)? | nie | niemals | weder | nichts
      | nunca | jamas | tampoco | ningun[oa]? | nada
      | ne | pas | jamais | aucune? | n['’](?=\w)
      | non | nao
    )\b | n['’](?=est|a\b|ont|y)
    """,
    re.VERBOSE,
)
# Not the characters in 不同 (different), 不仅 (not only), 没关系 and 无论 (no matter), 未来 (future).
_CJK_NEGATION = re.compile(r"不(?![同仅但断少错])|没(?!关系)|無|无(?![论限])|未(?!来)|勿|禁止|别")
# "no less than 5", "not only", "no. 5": words of negation that deny nothing.
_NO_NEGATION = re.compile(
    r"\b(?:no|not) (?:less|fewer|more|later|earlier|only|just|necessarily|longer than)\b|\bno\."
    r" ?\d|\bnicht nur\b|\bno solo\b"
)
_CONJUNCTIONS = (
    "because|since|while|although|though|unless|if|when|where|weil|dass|wenn|obwohl|porque|que|aunque|si|cuando|parce"
    " que|qui|quand"
)
# What follows says why, when or of what: a negation there denies something else.
_SUBORDINATE = re.compile(
    rf",? (?:{_CONJUNCTIONS}|as long as|which|who|whose|that|so that|except|but|pero|mais)\b"
    r"|, (?:der|die|das|da|denn|aber) |[;:(—]|，|；"
)
# "Because it is hot, …": what is claimed begins after the comma.
_BEGINS_SUBORDINATE = re.compile(rf"^\W*(?:{_CONJUNCTIONS})\b[^,]*,\s*")
# Words by which a speaker is not sure, in English, German, Spanish, French and Chinese, without accents.
_HEDGE = re.compile(
    r"\b(?:might|could|perhaps|possibly|probably|likely|unlikely|maybe|seems?|appears?|suggests?|apparently|presumably|tends?|unclear|uncertain|"
    r"(?:not|un)(?: \w+)? (?:sure|certain|convinced|clear|known)|(?:do|does|did)(?: not|n['’]t)"
    r" know|little evidence|"
    r"vielleicht|moglicherweise|vermutlich|wahrscheinlich|konnten?|eventuell|quiza|quizas|tal"
    r" vez|probablemente|podrian?|posiblemente|"
    r"peut-etre|probablement|pourrait|pourraient)\b|可能|也许|或许|大概"
)
# The verb, not the month in "May 5".
_MAY = re.compile(r"\bmay\b(?! \d)")
# A question about what is allowed, where "may" is no hedge.
_PERMITS = re.compile(
    r"^\W*(?:may|can|could|must|should|do|does|is"
    r" it|are)\b|\b(?:allow|legal|permit|forbid|prohibit|safe|lawful)\w*"
)
# The noun after "before" or "after", without its article.
_BEFORE_OR_AFTER = re.compile(
    r"\b(?:before|prior to|after|following|vor|nach|antes de|despues de|avant|apres)\s+"
    r"(?:(?:the|an?|every|de[rmn]|die|das|el|la|los|las|le|les)\s|l['’])?(\w+)"
)
# Whom a rule is for: what holds for adults does not contradict what holds for children.
_PEOPLE = re.compile(
    r"\b(adult|child|children|infant|bab(?:y|ies)|newborn|teenager|adolescent|men|women|pregnan\w+|elderly|senior|beginner|novice|athlete|expert|"
    r"employee|employer|tenant|landlord|student|worker|smoker|diabetic|vegan|vegetarian)s?\b"
)


@dataclass(frozen=True, slots=True)
class Stance:
    """How a sentence takes sides: what it denies or allows, and which ends of oppositions it names.

    Attributes:
        denies: Whether its main clause has a negation.
        ends: For each kind of opposition, how often each of its ends is named: (kind, 1 or -1).
        is_hedged: Whether it says that something may be so.
        may: Whether it says "may", which allows something or says that it is possible.
        people: Whom it names.
    """

    denies: bool
    ends: Mapping[tuple[str, int], int]
    is_hedged: bool
    may: bool
    people: frozenset[str]


NO_STANCE = Stance(denies=False, ends={}, is_hedged=False, may=False, people=frozenset())


def stance_of(sentence: str) -> Stance:
    """Returns the stance of a sentence.

    Example:
        >>> stance_of("Salt does not raise it, because it is not absorbed.").denies, stance_of("Salt may raise it.").may
        (True, True)
    """
    text = fold(sentence)
    main = main_clause(text)
    return Stance(
        denies=_denies(main),
        ends=_ends(text),
        is_hedged=_HEDGE.search(text) is not None,
        may=_MAY.search(text) is not None,
        people=frozenset(match[1][:5] for match in _PEOPLE.finditer(text)),
    )


def main_clause(text: str) -> str:
    """Returns a sentence without what says why, when or of what."""
    rest = _BEGINS_SUBORDINATE.sub("", text)
    cut = _SUBORDINATE.search(rest, 12)
    return rest[: cut.start()] if cut else rest


def asks_for_permission(query: str) -> bool:
    """Whether a query asks what is allowed or safe, so that "may" in an answer allows it."""
    return _PERMITS.search(fold(query)) is not None


def oppositions(first: Stance, second: Stance) -> tuple[str, ...]:
    """Returns the kinds of opposition between two sentences: those of whose ends each names another
    one, and `negation`.
    """
    found = ["negation"] if first.denies != second.denies else []
    for kind in sorted({kind for kind, _ in (*first.ends, *second.ends)}):
        one = Counter({end: first.ends.get((kind, end), 0) for end in (1, -1)})
        other = Counter({end: second.ends.get((kind, end), 0) for end in (1, -1)})
        left, right = (
            one - other,
            other - one,
        )  # what both name, such as rising rates, is what they have in common
        if left and right and set(left) != set(right):
            found.append(kind)
    return tuple(found)


def order_objects(sentence: str) -> frozenset[str]:
    """Returns what a sentence says that something is before or after.

    Example:
        >>> sorted(order_objects("Give it before the incision and not after closing."))
        ['closi', 'incis']
    """
    return frozenset(match[1][:5] for match in _BEFORE_OR_AFTER.finditer(fold(sentence)))


def is_opposing_word(word: str) -> bool:
    """Whether a word names an end of an opposition."""
    return _end_of(word) is not None


def _denies(main: str) -> bool:
    plain = _NO_NEGATION.sub(" ", main)
    return _NEGATION.search(plain) is not None or _CJK_NEGATION.search(plain) is not None


def _ends(text: str) -> dict[tuple[str, int], int]:
    found: Counter[tuple[str, int]] = Counter()
    for phrase, end in _PHRASES:
        text, times = phrase.subn(" ", text)
        found[end] += times
    for word in _AXIS_WORD.findall(text):
        named = _end_of(word)
        if named is not None:
            found[named] += 1
    for kind, more, less in _CJK_AXES:
        found[kind, 1] += sum(text.count(word) for word in more)
        found[kind, -1] += sum(text.count(word) for word in less)
    return {end: times for end, times in found.items() if times}


_MOST_WORDS = 10_000
"""Words whose stems, or ends of oppositions, are kept: answers use the same ones again and again."""


@lru_cache(maxsize=_MOST_WORDS)
def _end_of(word: str) -> tuple[str, int] | None:
    """Returns the end of an opposition that a word names."""
    if word in _WORDS:
        return _WORDS[word]
    beginnings = _BEGINNINGS_BY_LETTER.get(word[:1], {})
    return next((end for beginning, end in beginnings.items() if word.startswith(beginning)), None)


def _read_axes() -> tuple[dict[str, tuple[str, int]], dict[str, dict[str, tuple[str, int]]]]:
    words: dict[str, tuple[str, int]] = {}
    beginnings: dict[str, dict[str, tuple[str, int]]] = {}
    kind, sign = "", 1
    for token in _AXES.split():
        if token.endswith(":"):
            kind, sign = token[:-1], 1
        elif token == "|":
            sign = -1
        elif token.endswith("*"):
            beginnings.setdefault(token[0], {})[token[:-1]] = (kind, sign)
        else:
            words[token] = (kind, sign)
    return words, beginnings


_WORDS, _BEGINNINGS_BY_LETTER = _read_axes()


# Letters and digits; an apostrophe or a hyphen may stand inside.
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
# What stems leave out: the plural, the third person, -ing, -ed; and one of two consonants before it.
_ENDING = re.compile(r"(?:ies|es|s|ing|ed)$")
# A consonant twice, as before -ing and -ed: planning.
_DOUBLED = re.compile(r"([b-df-hj-np-tv-z])\1$")
_LEAST_ENDED = 3
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""Scripts without spaces between words."""
# A syllable that denies the rest of its word: unsafe, impossible, non-toxic.
_OPPOSING = re.compile(r"^(?:un|in|im|il|ir|non-?)(?=\w{3})")
# "no less than", "no. 5": see _NO_NEGATION; here before words are told apart.
_QUALIFIED = re.compile(
    r"\b(?:no|not) (?:less|fewer|more|only|later|earlier) (?:than)?|\bno\. ?\d", re.IGNORECASE
)


def tokens(text: str) -> list[str]:
    """Returns the words of a text in order, without case and accents.

    Example:
        >>> tokens("Bats aren't blind: Élan, K2.")
        ['bats', "aren't", 'blind', 'elan', 'k2']
    """
    return _TOKEN.findall(fold(text))


@lru_cache(maxsize=_MOST_WORDS)
def stem(word: str) -> str:
    """Returns a word without the ending that grammar gives it; the same for `melts`, `melted` and
    `melting`.

    Example:
        >>> stem("melts"), stem("melting"), stem("jog"), stem("jogging"), stem("gas")
        ('melt', 'melt', 'jog', 'jog', 'gas')
    """
    short = _DOUBLED.sub(r"\1", _ENDING.sub("", word.removesuffix("'s")).rstrip("e"))
    return short if len(short) >= _LEAST_ENDED else word


def content(text: str) -> frozenset[str]:
    """Returns the stems of the words that carry meaning.

    Example:
        >>> sorted(content("Bats aren't really blind."))
        ['bat', 'blind']
    """
    found = set()
    for word in tokens(text):
        if word in EMPTY or word in NEGATIONS or word.endswith("n't") or word in MYTHS:
            continue
        found.add(DENIED.get(word) or stem(word))
    return frozenset(found)


def topic(text: str) -> frozenset[str]:
    """Returns what a text is about: the stems of its words in several languages, and of Chinese or
    Japanese every two characters in a row.

    Words that deny, and those that name an end of an opposition such as raise and lower, are not
    part of it.

    Example:
        >>> sorted(topic("It must not be given to patients after the free-of-charge visit."))
        ['charg', 'free', 'giv', 'patient', 'visit']
        >>> sorted(topic("每天最多4克"))
        ['天最', '最多', '每天']
    """
    found: set[str] = set()
    for token in tokens(text):
        if not token.isascii():
            for run in _HAN.findall(token):
                found.update(run[place : place + 2] for place in range(len(run) - 1))
            token = _HAN.sub("-", token)
        for word in token.removesuffix("'s").split("-"):
            found.add(_topic_stem(word))
    return frozenset(found - {""})


@lru_cache(maxsize=_MOST_WORDS)
def _topic_stem(word: str) -> str:
    """Returns the stem of a word; empty where it tells nothing of what a text is about."""
    if (
        len(word) < 2
        or word in EMPTY
        or word in EMPTY_ELSEWHERE
        or word in NEGATIONS
        or _NEGATION.fullmatch(word)
        or word.endswith("n't")
        or is_opposing_word(word)
        or word.isdigit()
    ):
        return ""
    return stem(IRREGULAR.get(word, word))


def denies(text: str) -> bool:
    """Whether a sentence denies something: `not`, `never`, `forbidden`, `a myth`, but not `no less
    than`.

    Example:
        >>> denies("Gold never rusts."), denies("It is forbidden."), denies("No less than 5 km.")
        (True, True, False)
    """
    words = tokens(_QUALIFIED.sub(" ", text.replace("’", "'")))
    return any(
        word in NEGATIONS or word.endswith("n't") or word in DENIED or word in MYTHS
        for word in words
    )


def opposes(words: frozenset[str], known: frozenset[str]) -> bool:
    """Whether one of some stems is one of the known ones with a syllable before it that denies it.

    Example:
        >>> opposes(content("It is unsafe."), content("Is it safe?")), opposes(content("Invite him."), content("Is it safe?"))
        (True, False)
    """
    return any(_OPPOSING.sub("", word) in known for word in words - known)
