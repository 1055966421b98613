"""Words: which of them carry meaning, without their endings, which name two ends of an opposition, and
whether a sentence denies what it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from domainfusion.distillation.integration.values import (
    DENIED,
    EMPTY,
    EMPTY_ELSEWHERE,
    IRREGULAR,
    MYTHS,
    NEGATIONS,
    fold,
)

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
)

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_NEGATION = re.compile(
    r"""
    \b(?: not | never | cannot | neither | nor | none | nobody | nothing | nowhere | no | hardly | \w+n['’]t
      | nicht | kein(?:e[nmrs]?)? | nie | niemals | weder | nichts
      | nunca | jamas | tampoco | ningun[oa]? | nada
      | ne | pas | jamais | aucune? | n['’](?=\w)
      | non | nao | nao
    )\b | n['’](?=est|a\b|ont|y)
    """,
    re.VERBOSE,
)
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
_BEGINS_SUBORDINATE = re.compile(rf"^\W*(?:{_CONJUNCTIONS})\b[^,]*,\s*")
_HEDGE = re.compile(
    r"\b(?:might|could|perhaps|possibly|probably|likely|unlikely|maybe|seems?|appears?|suggests?|apparently|presumably|tends?|unclear|uncertain|"
    r"(?:not|un)(?: \w+)? (?:sure|certain|convinced|clear|known)|(?:do|does|did)(?: not|n['’]t)"
    r" know|little evidence|"
    r"vielleicht|moglicherweise|vermutlich|wahrscheinlich|konnten?|eventuell|quiza|quizas|tal"
    r" vez|probablemente|podrian?|posiblemente|"
    r"peut-etre|probablement|pourrait|pourraient)\b|可能|也许|或许|大概"
)
_MAY = re.compile(r"\bmay\b(?! \d)")
_PERMITS = re.compile(
    r"^\W*(?:may|can|could|must|should|do|does|is"
    r" it|are)\b|\b(?:allow|legal|permit|forbid|prohibit|safe|lawful)\w*"
)
_BEFORE_OR_AFTER = re.compile(
    r"\b(?:before|prior to|after|following|vor|nach|antes de|despues de|avant|apres)\s+"
    r"(?:(?:the|an?|every|de[rmn]|die|das|el|la|los|las|le|les)\s|l['’])?(\w+)"
)
_PEOPLE = re.compile(
    r"\b(adult|child|children|infant|bab(?:y|ies)|newborn|teenager|adolescent|men|women|pregnan\w+|elderly|senior|beginner|novice|athlete|expert|"
    r"employee|employer|tenant|landlord|student|worker|smoker|diabetic|vegan|vegetarian)s?\b"
)


@dataclass(frozen=True, slots=True)
class Stance:
    """What a sentence says for or against something.

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
    """Returns what a sentence says for or against something.

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
    for word in _WORD.findall(text):
        named = _end_of(word)
        if named is not None:
            found[named] += 1
    for kind, more, less in _CJK_AXES:
        found[kind, 1] += sum(text.count(word) for word in more)
        found[kind, -1] += sum(text.count(word) for word in less)
    return {end: times for end, times in found.items() if times}


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


_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ENDING = re.compile(r"(?:ies|es|s|ing|ed)$")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-z])\1$")
_LEAST_STEM = 3
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""Scripts without spaces between words."""
_OPPOSING = re.compile(r"^(?:un|in|im|il|ir|non-?)(?=\w{3})")
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


def stem(word: str) -> str:
    """Returns a word without the ending that grammar gives it; the same for `melts`, `melted` and
    `melting`.

    Example:
        >>> stem("melts"), stem("melting"), stem("jog"), stem("jogging"), stem("gas")
        ('melt', 'melt', 'jog', 'jog', 'gas')
    """
    short = _DOUBLED.sub(r"\1", _ENDING.sub("", word.removesuffix("'s")).rstrip("e"))
    return short if len(short) >= _LEAST_STEM else word


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
        for run in _HAN.findall(token):
            found.update(run[place : place + 2] for place in range(len(run) - 1))
        for word in _HAN.sub("-", token).removesuffix("'s").split("-"):
            if (
                len(word) < 2
                or word in EMPTY
                or word in EMPTY_ELSEWHERE
                or word in NEGATIONS
                or word.endswith("n't")
            ):
                continue
            if not is_opposing_word(word) and not word.isdigit():
                found.add(stem(IRREGULAR.get(word, word)))
    return frozenset(found)


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
