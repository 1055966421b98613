"""What a text says of an answer that stands in it: that it is not so, that it was so once, or that it
is one of several guesses; and whether it says yes or no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from domainfusion.distillation.text.quantities import Stated, read_quantities
from domainfusion.distillation.text.sentences import Span
from domainfusion.distillation.text.words import (
    ARTICLES,
    fold,
    normalize,
    render,
    words_of,
)

# Denial

# A stop before a space or a closing mark; in scripts without spaces, the stop alone.
_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]]|\Z)|[。！？;；\n।؟]")
_BUT = (
    r"\b(?:but|sondern|sino|mais|ma|aber|pero|but rather|maar|men|utan|αλλά|но|а)\b|而是|而|，|。"
)
_NOT = re.compile(
    r"""
    (?<![\w-])(?:
        # English
        not | never | neither | anything\ but
        | nor | no | cannot | [a-z]+n't | hardly | no\ longer | rather\ than | instead\ of | other\ than
        | except(?:\ for)? | unlike | as\ opposed\ to | (?:false|wrong|incorrect)\ (?:that|to\ (?:say|think|claim|believe)(?:\ that)?)
        | doubt(?:ful)?(?:\ that)? | far\ from
        # German, French, Spanish and Portuguese, Italian
        | nicht | nie | niemals | weder | kein(?:e[rnms]?)? | statt | anstatt | pas | jamais | plutôt\ que
        | nunca | jamás | tampoco | não | nem | non | né
        # Dutch, the languages of Scandinavia, Finnish, Hungarian, Polish and Czech, South Slavic, Romanian
        | niet | geen | nooit | inte | icke | ikke | aldrig | ei | eivät | nem | ne | není | nije | nu
        # Russian and Ukrainian, Greek, Arabic, Hebrew, Indonesian, Vietnamese, Turkish
        | не | нет | ни | ніколи | никогда | δεν | όχι | μη | ليس | ليست | ليسا | لا | לא | אינו | אינה | bukan | tidak | không | chẳng
        | değil
    )(?![\w-])
    # scripts without spaces
    | 不是 | 并非 | 並非 | 不叫 | 不在 | 没有 | 不为 | 绝非 | 而非 | 不可能是 | ไม่ใช่ | ไม่
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Words before an answer that deny it."""
_SAYS_YES = re.compile(
    r"(?:no|non|nein|não|нет|ne|nie)\s?[,.:;–—]|no\.? ?\d|no doubt|not"
    r" (?:only|just|merely|surprising)|nicht nur|pas seulement|не только",
    re.IGNORECASE,
)
"""What begins like a denial and is none: "No, it is Lima", "not only"."""
_RAISES = re.compile(
    r"\s*(?:really\s)?(?:think|believe|suppose|say|claim|mean|guess|expect|true|correct|right|the"
    r" case|glaube|denke|creo|crois|думаю)\b",
    re.IGNORECASE,
)
"""After these a denial reaches into the clause that follows: I do not think it is Lima."""
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|does|do|did|can|will|would|comes?|came|because|since|which|that|who|it's|that's"
    r"|ist|sind|war|heißt|weil|denn|est|sont|était|parce|es|son|era|fue|porque|è|sono|é|são|потому)\b|是|叫|位于|です",
    re.IGNORECASE,
)
"""A verb, or the beginning of another clause, ends the reach of a denial: it does not rust because
of chromium.
"""
_COPULA = re.compile(r"^\s(?:es|era|é|è|são|sono|est|ist|был|была)\s", re.IGNORECASE)
"""A verb that follows the denying word in other languages: no es Lima."""
_UNDONE = re.compile(r"\b(?:without|unless|until|ohne|sans|sin)\b", re.IGNORECASE)
"""A second denial that undoes the first: you can't breathe without oxygen."""
_AFTER_NEVER = 1
"""Words between "never" and what it denies: it never rains in Lima says that it is Lima."""
_REACH = 60
_SENTENCE = 160
"""Characters before an answer in which a denial is looked for."""
MOST_SPANS = 100
"""Places at which an answer is looked at; a text that denies it as often does not state it."""
_END = r"(?:\W*$|\W*[.!?;,])"
_RIGHT = r"(?:the|correct|right|true|it|that|what|my|an answer|a (?:correct|right|valid))"
_BE = r"(?:is|are|was|would be|seems|ist|wäre|est|es|è|é)"
_WRONG = (
    r"(?:wrong|incorrect|false|ruled out|excluded|out of the"
    r" question|falsch|faux|fausse|inexact|incorrecto|incorrecta|falso|falsa|errado"
    r"|sbagliato|onjuist|nicht\b|pas\b)"
)
_WRONG_AFTER = re.compile(
    r"\W{0,4}\s?(?:"
    rf"{_BE}\s(?:definitely |clearly |certainly |simply |therefore |also )?(?:(?:not|never)"
    rf" {_RIGHT}\b|not(?={_END})|{_WRONG})"
    rf"|(?:isn't|aren't|wasn't)(?: {_RIGHT}\b|{_END})"
    rf"|which {_BE}\s(?:definitely |clearly |certainly |simply |of course )?(?:(?:not|never)"
    rf" {_RIGHT}\b|not(?={_END})|{_WRONG})"
    rf"|but (?:that|this|it)(?:'s| is| was) (?:(?:not|never) {_RIGHT}\b|not(?={_END})|{_WRONG})"
    rf"|can(?:not|'t| not) be (?:the|right|correct|true|it)\b"
    r"|n'est pas\b|no es\b|non è\b|não é\b|is niet\b|är inte\b|er ikke\b|nie jest\b|не"
    r" (?:является|столица|верно|прав)|değil"
    # Chinese, Japanese, Korean, Hindi, Thai
    r"|不是|并不是|不对|是错|ではない|ではありません|ではなく|じゃない|でない|ではございません|(?:이|가|은|는)?\s?(?:아니|아닙|아냐)|नहीं|ไม่ใช่"
    r")",
    re.IGNORECASE,
)
"""What follows an answer that is said to be wrong: is not the capital, is wrong."""
# A denied verb directly after an answer: "Paris is not …".
_PLAIN_NOT_AFTER = re.compile(
    r"\W{0,4}\s?(?:(?:is|are|was|ist|est|es|è|é)\s(?:not|nicht|pas)|isn't|aren't|wasn't|n'est"
    r" pas|no es|non è|não é|不是)",
    re.IGNORECASE,
)


_USED_TO = re.compile(
    r"\b(?:used to be|used to have|formerly|previously|in the past|until recently"
    r"|fruher|ehemals|einst|damals|antes|anteriormente|antiguamente|avant|autrefois|jadis|auparavant"
    r"|un tempo|in passato|antigamente|раньше|прежде)\b|以前|从前|曾经|曾是|かつて|以前は|昔は"
)
"""Before an answer and in its clause: what follows was so once."""
_CALLED = re.compile(
    r"\b(?:called|known|named)\b|genannt|llamad|appel|chiamat|chamad|назыв|叫|呼ば"
)
"""A former name is a name still."""
_ONCE_AFTER = re.compile(
    r"^ (?:(?:was|were) (?:once|formerly|previously|at one time)\b|used to be\b"
    r"|(?:is|was) (?:the |an? )?(?:former|previous|old|ex-)\b"
    r"|(?:was|were|has been|got) (?:replaced|succeeded|superseded) by\b"
    r"|war (?:fruher|einst|ehemals)\b|era antes\b|etait autrefois\b)"
)
"""After an answer: it was so once."""
# A verb of the past directly before an answer.
_WAS = re.compile(r"\b(?:was|were|had been|war|waren|era|fue|etait|был[аои]?) (?:the |in )?$")
# After an answer: it was so until then.
_UNTIL = re.compile(r"^,? (?:until|till|up to|bis|hasta|jusqu)\b")
_NOW = re.compile(
    r"\b(?:now|today|currently|nowadays|these days|at present|presently|has been|have been|moved to"
    r"|replaced (?:it|by)|heute|jetzt|inzwischen|mittlerweile|ahora|hoy|actualmente|maintenant"
    r"|aujourd'hui|desormais|oggi|adesso|attualmente|agora|hoje|теперь|сейчас|сегодня|является"
    r"|is the former|(?:replaced|succeeded|superseded) by|but (?:it|that|this) is)\b"
    r"|现在|如今|目前|今は|現在"
)
"""What says that something else is so at present."""
# What says that another thing is so by now: "since 1960 it is".
_IS_INSTEAD = re.compile(
    r"\b(?:since (?:then|\d{4})|now|today|currently)\b,? (?:it|that|this|the \w+) (?:is|has been)\b"
)
# Words of a question that asks what was so once, a past tense or a year among them.
_ASKS_FOR_THE_PAST = re.compile(
    r"\b(?:was(?! ist| sind| heisst)|were|did|had|used to|former(?:ly)?|previous(?:ly)?|before|once|original(?:ly)?|old|earlier|past"
    r"|ancient|histor\w+|first|until|\w{3,}ed|wrote|won|became|made|led|held|built|found|[12]\d{3}"
    r"|war|waren|fruher|hiess|era|fue|antes|etait|avant|autrefois|fut|был[аои]?|раньше)\b"
    r"|以前|曾|过去|過去|昔|かつて|でした"
)
_BELIEVED = re.compile(
    r"\b(?:many|most|some|people|often|commonly|widely|you (?:might|may))\b[^.!?;]{0,40}"
    r"\b(?:think|believe|assume|say|claim|suppose|mistaken|thought|believed|assumed|said)\b[^.!?;,]{0,40}$",
    re.IGNORECASE,
)
"""What others believe: many people think that it is …"""
_DENIES_BELIEF = re.compile(
    r"^[^.!?;]{0,40}[,;] (?:but|however|yet|although|in fact|actually|in reality)\b", re.IGNORECASE
)
"""After a belief: but …"""


def _is_outdated(seen: str, span: Span, before: str, after: str, query: str) -> bool:
    """Whether an answer is said to have been so once, while the text says what is so now, and
    nothing of the past was asked for: it used to be Lima, but it is Quito now.
    """
    query = fold(query)
    if _ASKS_FOR_THE_PAST.search(query) or not _speaks_of_now(seen):
        return bool(
            query
            and not _ASKS_FOR_THE_PAST.search(query)
            and _WAS.search(fold(before))
            and _IS_INSTEAD.search(fold(seen[span.end :]))
        )
    # From the last comma, semicolon or colon that is not inside of a number.
    clause = re.split(r"[,;:](?!\d)|[，；]", before)[-1]
    if clause.strip() in ("", "it was", "it is") or not _USED_TO.search(fold(clause)):
        # "Previously, Lima was the capital": the word and its comma stand before the clause.
        clause = before if re.fullmatch(r"\W*\w+,\s\W*", before) else clause
    tail, start = fold(after), fold(clause)
    used = _USED_TO.search(start)
    if used is not None:
        between = start[used.end() :]
        # "It used to be Lima, but now …": what comes after the turn holds.
        return not _CALLED.search(between) and not re.search(r"\b(?:but|now|sondern)\b", between)
    if _ONCE_AFTER.match(tail):
        return True
    return bool(_WAS.search(start) and (_UNTIL.match(tail) or _IS_INSTEAD.search(fold(seen))))


@lru_cache(maxsize=4)
def _speaks_of_now(seen: str) -> bool:
    """Whether a text says of something that it is so at present; it is asked for each place at which
    an answer stands in one text.
    """
    return _NOW.search(fold(seen)) is not None


def denies_something(text: str) -> bool:
    """Whether a text has a word that denies, as a question that asks what something is not."""
    return _NOT.search(render(text).text) is not None


def is_denied(seen: str, span: Span, *, query: str = "") -> bool:
    """Whether a rendered text says that what stands at a place is not so.

    Args:
        seen: The rendered text.
        span: Where the answer stands.
        query: What was asked: where it asks for what is not so, "X is not ..." is an answer and no
            denial.

    Example:
        >>> [is_denied(text, Span(text.index("Lima"), text.index("Lima") + 4)) for text in ("It isn't Lima.", "No, it is Lima.")]
        [True, False]
    """
    start = max(
        (
            match.end()
            for match in _SENTENCE_END.finditer(seen, max(0, span.start - _SENTENCE), span.start)
        ),
        default=0,
    )
    before = seen[max(start, span.start - _SENTENCE) : span.start]
    end = _SENTENCE_END.search(seen, span.end)
    after = seen[span.end : min(end.end() if end else len(seen), span.end + _REACH)]
    if _is_outdated(seen, span, before, after, query):
        return True
    if _BELIEVED.search(before) and _DENIES_BELIEF.search(after):
        return True
    wrong = _WRONG_AFTER.match(after)
    if wrong is not None and not (_PLAIN_NOT_AFTER.match(after) and denies_something(query)):
        return True
    last, passed = None, 0
    for match in _NOT.finditer(before):
        if yes := _SAYS_YES.match(before, match.start()):
            passed = yes.end()
        elif match.start() >= passed:
            last = match
    if last is None:
        return False
    between = before[last.end() :]
    if re.search(_BUT, between, re.IGNORECASE) or (
        re.search(r"[,:](?=\s)", between) and not re.match(r"^\s?,", between)
    ):
        return False
    if _UNDONE.search(between) or (
        last.group().casefold() == "never" and len(between.split()) > _AFTER_NEVER
    ):
        return False
    raising = ("that", "say", "think", "claim", "believe", "doubt")
    is_raised = last.group().casefold().endswith(raising) or _RAISES.match(between) is not None
    if not is_raised and _VERB.search(_COPULA.sub("", between)):
        return False
    return len(between) <= _REACH and len(between.split()) <= 7


# Guesses

_OR = r"or|oder|ou|o|u|или|або|lub|albo|nebo|eller|veya|ya da|hoặc|atau|vagy|أو|או|या"
_OR_UNSPACED = "または|あるいは|或者|或是|或|还是|還是|또는|혹은|หรือ|아니면|か(?=\\w)"
_HEDGE = (
    r"(?:either|maybe|perhaps|possibly|probably|it could be|it might be|it may be|could be|might"
    r" be|may be|it is|it's|is it|entweder|"
    r"vielleicht|peut-être|quizás|tal vez|может быть|the answer is|it would be|i guess|i"
    r" think|or|and|oder)"
)
# Words that leave it open whether something is so.
_MODAL = re.compile(
    r"\b(?:maybe|perhaps|possibly|could be|might be|may be|vielleicht|peut-être|quizás)\b",
    re.IGNORECASE,
)
# What may stand before a guess: marks of lists, quotes, hedges.
_LEAD = re.compile(
    rf"^(?:[\s\-*•·–—(\[\"']|\d{{1,2}}[.)]\s|[a-zA-Z][.)]\s|{_HEDGE}(?!\w)[,:]?)*", re.IGNORECASE
)
# Between the items of a list of guesses: a comma, a stop, "or", "and".
_ITEM_END = re.compile(
    r"[,;/\n]|[.!?](?=\s|\Z)|[。！？、，"
    rf"]|(?<!\w)(?:{_OR}|and|und|et|y|e|и|&)(?!\w)|{_OR_UNSPACED}",
    re.IGNORECASE,
)
# What an item begins with that is not another guess: "or more", "or something".
_NO_CANDIDATE = re.compile(
    r"(?:so|more|less|fewer|greater|higher|lower|later|earlier|about|roughly|rather|simply|even|both|not|else|otherwise|other|others|"
    r"something|anything|similar|the like|in other"
    r" words|equivalently|better|any|i|it|he|she|they|we|you|there|this|that|which|"
    r"to|in|at|for|by|is|are|mehr|weniger|plus|moins|más|menos)(?!\w)",
    re.IGNORECASE,
)
_MOST_WORDS = 4
_LIST_REACH = 200
_OR_REACH = 40
_LONGEST_ITEM = 40
_MOST_LIST = 600
_JOINING = frozenset(
    [
        "of",
        "de",
        "da",
        "do",
        "di",
        "du",
        "van",
        "von",
        "der",
        "den",
        "la",
        "le",
        "el",
        "al",
        "bin",
        "y",
        "the",
        "and",
    ]
)
# Marks before a clause: white space, bullets, quotes, numbers of lists.
_LEAD_MARKS = re.compile(r"^(?:[\s\-*•·–—(\[\"']|\d{1,2}[.)]\s)*")
_LEAD_WORDS = rf"^(?:(?:{_HEDGE}|the|a|an)\s)*"
# The end of a clause: a stop, a line break, a comma before a space.
_CLAUSE_END = re.compile(r"[.!?;](?=\s|\Z)|[\n。！？；]|,\s")
_INTRODUCTION = re.compile(
    r"^[^,.;!?\n]{0,120}?(?::|\b(?:is|are|was|be|ist|est|es|è|é|would be)\b|是|は)\s*",
    re.IGNORECASE,
)
"""What stands before a list: The capital is."""
# An "or" of any language.
_OR_WORD = re.compile(rf"(?<!\w)(?:{_OR})(?!\w)|{_OR_UNSPACED}", re.IGNORECASE)
# An "or" directly before an answer, with a hedge or an article in between.
_OR_BEFORE = re.compile(
    rf"(?:\s(?:{_OR})\s(?:{_HEDGE}\s)?(?:the\s|an?\s)?|(?:{_OR_UNSPACED}))$", re.IGNORECASE
)
# The end of a sentence, a semicolon among them.
_STOP = re.compile(r"[;!?\n。！？]|\.(?=\s|\Z)")
_Test = Callable[[str], bool]


def is_one_of_guesses(
    seen: str, span: Span, known: Iterable[str], query: str = "", *, spare: int = 0
) -> bool:
    """Whether what stands at a place of a rendered text is one of several candidates that exclude
    each other.

    Candidates are joined by "or", or the whole text is a list of three or more, or a sentence says
    the same of another one. What is an accepted answer too is not a candidate, and what stands in
    the query is one only beside an "or".

    Args:
        seen: The rendered text.
        span: Where the answer stands.
        known: Every accepted answer of the example.
        query: What was asked.
        spare: How many other things are asked for whose answers are not known: so many others
            in a list, or in sentences of the same form, may be these.

    Example:
        >>> [is_one_of_guesses(text, Span(text.index("Lima"), text.index("Lima") + 4), ["Lima"]) for text in
        ...  ("Lima, Quito or Bogotá", "Lima/Quito/Bogotá", "Maybe Lima. Maybe Quito.", "In Lima, Peru.", "It is Lima or Ciudad.")]
        [True, True, True, False, True]
    """
    answer = seen[span.start : span.end]
    accepted = [normalize(one) for one in known]
    asked = f" {' '.join(words_of(query))} "

    def is_other(candidate: str) -> bool:
        bare = normalize(candidate.strip(" \t\"'.,!?()[]*"))
        if not bare or not _is_alike(answer, candidate.strip()):
            return False
        return not any(
            bare == one or (one and (f" {one} " in f" {bare} " or f" {bare} " in f" {one} "))
            for one in accepted
        )

    def is_new(candidate: str) -> bool:
        return is_other(candidate) and f" {' '.join(words_of(candidate))} " not in asked

    return (
        _is_joined_by_or(seen, span, is_other)
        or _is_in_list(seen, span, is_new, spare)
        or _is_said_of_others(seen, span, is_new, spare)
        or _is_admitted_guess(seen, span)
    )


# Says that nobody knows: "I don't know"; not "I don't know whether …", which asks something else.
_KNOWS_NOT = re.compile(
    r"\b(?:(?:don't|do not|can't|cannot) (?:really |actually )?(?:know|say|tell)\b"
    r"(?! (?:if|whether|why|how|what|who|anyone|anybody|of a better))"
    r"|(?:not|un)\s?(?:sure|certain)\b|no idea\b|no clue\b)",
    re.IGNORECASE,
)


def _is_admitted_guess(seen: str, span: Span) -> bool:
    """Whether a text says that it does not know, and brings in the answer in doubt: I don't know.
    Maybe blue?
    """
    if len(seen) > _MOST_LIST or not _KNOWS_NOT.search(seen, 0, span.start):
        return False
    start = max((match.end() for match in _CLAUSE_END.finditer(seen, 0, span.start)), default=0)
    stop = _STOP.search(seen, span.end)
    own = seen[start : stop.end() if stop else len(seen)]
    return own.rstrip().endswith("?") or _MODAL.search(own) is not None


def _is_joined_by_or(seen: str, span: Span, is_other: _Test) -> bool:
    """Whether "or" joins the answer with another candidate, directly or at the end of a list that
    both are in.
    """
    after = _STOP.split(seen[span.end : span.end + _LIST_REACH], maxsplit=1)[0]
    found = _OR_WORD.search(after)
    if found is not None:
        listed, last = after[: found.start()].split(","), after[found.end() :].strip()
        # "sodium chloride, or table salt" gives one thing two names
        is_other_name = len(listed) == 2 and not listed[1].strip() and not _MODAL.match(last)
        if not listed[0].strip() and not is_other_name and _are_short(listed):
            return any(is_other(candidate) for candidate in (*listed[1:], _leading(last)))
    before = seen[max(0, span.start - _LIST_REACH) : span.start]
    found = _OR_BEFORE.search(before, max(0, len(before) - _OR_REACH))
    if found is None:
        return False
    listed = _STOP.split(before[: found.start()])[-1].split(",")
    if len(listed) == 2 and not listed[1].strip():
        return False
    return _are_short(listed[1:]) and any(
        is_other(candidate) for candidate in (_trailing(listed[0]), *listed[1:])
    )


def _are_short(items: Iterable[str]) -> bool:
    return all(len(item) <= _LONGEST_ITEM for item in items)


def _leading(text: str) -> str:
    """Returns the candidate that a text begins with: its capitalised words, else its first
    words.
    """
    text = re.sub(_LEAD_WORDS, "", text.strip())
    words = text.split()[:_MOST_WORDS]
    names: list[str] = []
    for word in words:
        if names and word[0].islower() and word not in _JOINING:
            break
        names.append(word)
    return " ".join(names if words and not words[0][0].islower() else words[:1])


def _trailing(text: str) -> str:
    """Returns the candidate that a text ends with."""
    words = text.split()[-_MOST_WORDS:]
    names: list[str] = []
    for word in reversed(words):
        if names and word[0].islower() and word not in _JOINING:
            break
        names.insert(0, word)
    return " ".join(names)


def _is_in_list(seen: str, span: Span, is_other: _Test, spare: int) -> bool:
    """Whether the whole text is a list of three candidates or more, or of two that are in doubt;
    `spare` others may be answers to something else.
    """
    if len(seen) > _MOST_LIST:
        return False
    items = [item.strip() for item in _ITEM_END.split(_INTRODUCTION.sub("", seen, count=1))]
    bare = [_LEAD.sub("", item).strip(" \t\"'()[]*.") for item in items]
    bare = [item for item in bare if item]
    if any(len(item.split()) > _MOST_WORDS or _VERB.search(item) for item in bare):
        return False
    answer = normalize(seen[span.start : span.end])
    others = sum(is_other(item) for item in bare if normalize(item) != answer)
    is_doubtful = _MODAL.search(seen) is not None or seen.count("?") > 1
    fewest = 1 + spare if is_doubtful else max(2, 1 + spare)
    return answer in map(normalize, bare) and others >= fewest


def _is_said_of_others(seen: str, span: Span, is_other: _Test, spare: int) -> bool:
    """Whether another sentence, or more than `spare` others, differ from the one with the answer
    in nothing but the answer.
    """
    others = 0
    if len(seen) > _MOST_LIST:
        return False
    start = max((match.end() for match in _CLAUSE_END.finditer(seen, 0, span.start)), default=0)
    stop = _CLAUSE_END.search(seen, span.end)
    before = normalize(_LEAD_MARKS.sub("", seen[start : span.start]))
    after = normalize(seen[span.end : stop.start() if stop else len(seen)])
    words = before.split()
    if not words or (seen[span.start].islower() and len(words) < 3):
        return False
    own = seen[start : stop.start() if stop else len(seen)]
    for clause in _CLAUSE_END.split(seen):
        if clause == own:
            continue
        found = normalize(_LEAD_MARKS.sub("", clause))
        if not (found.startswith(f"{before} ") and found.endswith(after)):
            continue
        filler = _filler(clause, len(words), len(after.split()))
        if (
            filler
            and len(filler.split()) <= _MOST_WORDS
            and not _NOT.search(filler)
            and is_other(filler)
        ):
            others += 1
    return others > spare


def _filler(clause: str, before: int, after: int) -> str:
    """Returns the words of a clause between its first and its last ones, articles not counted."""
    words = [word for word in _LEAD_MARKS.sub("", clause).split() if word.lower() not in ARTICLES]
    return " ".join(words[before : len(words) - after])


def _is_alike(answer: str, candidate: str) -> bool:
    """Whether a candidate is the kind of thing that the answer is: a number, a name, or a word."""
    if not answer or not candidate or _NO_CANDIDATE.match(candidate):
        return False
    numbers, others = read_quantities(answer), read_quantities(candidate)
    if numbers and answer.strip("+-–")[:1].isdecimal():
        return (
            bool(others)
            and candidate.strip("+-–$€£ ")[:1].isalnum()
            and not any(_is_close(one, other) for one in numbers for other in others)
        )
    if answer[0].isupper():
        return all(
            word[:1].isupper() or word[:1].isdecimal() or word in _JOINING
            for word in candidate.split()
        )
    if answer[0].islower():
        return candidate[0].islower()
    return candidate[0].isalpha() and not candidate[0].isascii()


def _is_close(one: Stated, other: Stated) -> bool:
    """Whether two quantities are one, in the same unit or, rounded, in two: 100 °C or 212 °F."""
    if one.quantity.dimension != other.quantity.dimension:
        return False
    off = 1e-9 if one.unit == other.unit else 0.02
    return abs(one.quantity.middle - other.quantity.middle) <= off * abs(one.quantity.middle)


# Yes or no

_POLAR = re.compile(
    r"(?:^|(?<=[.!?:,;] )|(?<=\band ))(?:is|are|was|were|am|do|does|did|can|could|will|would|should|shall|must|may|might"
    r"|has|have|had)\s(?P<rest>[^?.!]*)\?",
    re.IGNORECASE,
)
"""A question that wants yes or no."""
# A verb in the tense of a sentence, in full or short: without one, an answer is no sentence.
_FINITE = re.compile(
    r"\b(?:is|are|was|were|do|does|did|can|could|will|would|should|must|may|has|have|had)\b"
    r"|\b(?:is|are|was|were|do|does|did|could|would|should|has|have|had|ca|wo)n't\b|\bcannot\b"
    r"|'s\b|'re\b",
    re.IGNORECASE,
)
# A word that denies, by itself or at the end of a verb.
_NEGATION = re.compile(r"\b(?:not|never|cannot)\b|n't\b", re.IGNORECASE)
# The same with the verb that it ends: isn't.
_DENYING_WORD = re.compile(r"\b\w+n't\b|\b(?:cannot|not|never)\b", re.IGNORECASE)
# A beginning that turns a word around, before four letters or more: unsafe, illegal.
_NEGATING_PREFIX = re.compile(r"(?:un|in|im|il|ir|non-?)(?=[a-z]{4})")


def says_yes_or_no(query: str, seen: str) -> str:
    """Returns `yes` or `no` where a text answers a question that wants one of them by stating the
    question's own words, or denying them: "It is safe." to "Is it safe to swim here?". Empty where
    it brings in other words, which a reader would have to understand, or where several such
    questions are asked.

    Args:
        query: What was asked.
        seen: The rendered answer.

    Example:
        >>> says_yes_or_no("Is it safe to swim here?", "It isn't safe."), says_yes_or_no("Is it safe?", "It is risky.")
        ('no', '')
    """
    asked = _POLAR.findall(query)
    if len(asked) != 1 or _OR_WORD.search(asked[0]) or _NEGATION.search(asked[0]):
        return ""
    stop = _SENTENCE_END.search(seen)
    first = seen[: stop.start()] if stop else seen
    if (stop and stop[0] == "?") or not _FINITE.search(first) or _MODAL.search(first):
        return ""
    known = set(words_of(asked[0])) - _PLAIN_WORDS
    said = words_of(_FINITE.sub(" ", _DENYING_WORD.sub(" ", first)))
    denials = len(_NEGATION.findall(first))
    stated = 0
    for word in said:
        if word in _PLAIN_WORDS or word in ARTICLES:
            continue
        bare = _NEGATING_PREFIX.sub("", word)
        if word not in known and bare not in known:
            return ""
        denials += word not in known
        stated += 1
    if not stated:
        return ""
    return "no" if denials % 2 else "yes"


_PLAIN_WORDS = frozenset(
    (
        "i", "you", "he", "she", "it", "we", "they", "this", "that", "these", "those", "there", "here",
        "his", "her", "its", "my", "your", "our", "their", "him", "them", "to", "of", "in", "on", "at",
        "for", "by", "with", "from", "as", "and", "very", "quite", "really", "indeed", "also", "still",
        "certainly", "definitely", "generally", "always", "now", "so", "be", "been", "being", "t", "s",
        "re",
    )
)  # fmt: skip
"""Words that say nothing of what was asked."""
