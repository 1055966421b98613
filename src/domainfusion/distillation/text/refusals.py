"""What chat models say instead of an answer, and around one: refusals, and openings and closings
that say nothing about the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from domainfusion.distillation.text.sentences import Span, sentence_spans
from domainfusion.errors import ConfigurationError

RefusalRule = Callable[[str, str], bool]
"""A rule of your own: from the question and the answer to whether the answer is a refusal."""

# Refusals


def _any(*patterns: str) -> str:
    """Returns a pattern that matches one of several."""
    return f"(?:{'|'.join(patterns)})"


_APOLOGY = _any(
    r"i(?:[’']m| am) (?:very |so |really )?sorry",
    "sorry",
    "i apologi[sz]e",
    "my apologies",
    "unfortunately",
)
_MACHINE = r"(?:an? )?" + _any(
    "ai", "artificial intelligence", "(?:large )?language model", "llm", "chatbot", "text-based"
)
_CANNOT = r"i(?:[’']m| am)? ?(?:just |simply |also )?" + _any(
    r"can[’']t|cannot|can not|won[’']t|will not|unable to|not able to",
    "must decline to|have to decline to",
    "don[’']t feel comfortable",
)
# What is refused is the request itself: "I can't help with that", not "I can't see it from here".
_REFUSED = _any(
    r"(?:help|assist)(?: you)? (?:with|in|on) (?:that|this|it|your|the|such|any|these|those)\b",
    r"(?:help|assist)(?: you)? (?:with|in|on) (?:creating|making|writing)\b",
    r"(?:help|assist)(?: you)?\s*[.!]?$",
    r"(?:answer|fulfil+|comply|respond to|discuss|engage|process|complete|continue|participate"
    r"|support|do|accommodate)\b.{0,30}\b(?:that|this|it|your|such|these|those|request|question)\b",
    r"(?:provide|give|offer|share|generate|create|write|produce|make|recommend|promote|advise)\b"
    r".{0,60}\b(?:that|this|such|these|those|your|you|advice|instructions|guidance|information"
    r"|content|assistance|opinions?|help)\b",
)
_SORRY_BUT = rf"(?:{_APOLOGY}\W{{0,3}}\s*(?:but|however|that)?\W{{0,2}}\s*)?"
_REFUSAL = re.compile(
    _any(
        # "I'm sorry, but (as an AI language model,) I can't help with that."
        rf"{_SORRY_BUT}(?:as {_MACHINE}\b[^.!?]{{0,60}}?,\s*)?{_CANNOT} {_REFUSED}",
        # "As an AI language model, I don't have personal opinions."
        rf"{_SORRY_BUT}(?:as|i[’']m|i am)(?: just| only)? {_MACHINE}\b[^.!?]{{0,60}}?"
        r"(?:,|\band\b|\bso\b)\s*(?:and |so )?(?:i )?"
        r"(?:don[’']t|do not|can[’']t|cannot|can not|am unable to|[’']m not able to|am not)\b",
        # "It is against my guidelines."
        r"(?:it|that|this)(?: request)? (?:is|goes|violates|would be)(?: against)? (?:my|our)"
        r" (?:guidelines|programming|policy|policies|principles)",
    ),
    re.IGNORECASE,
)
# An apology and nothing else.
_MERELY_SORRY = re.compile(rf"{_APOLOGY}\W*", re.IGNORECASE)

# In each language an apology, or a machine that speaks of itself, and in the same sentence that it
# can't.
_FOREIGN_REFUSAL = re.compile(
    _any(
        r"(?:(?:es )?tut mir (?:sehr )?leid|entschuldigung|leider"
        r"|als (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell))\b"
        r"[^.!?]{0,80}\b(?:kann ich|ich kann)\b[^.!?]{0,60}\b(?:nicht|keine?n?)\b",
        r"(?:(?:je suis )?(?:vraiment )?désolée?"
        r"|en tant qu[’']?(?:e |une? )?(?:ia|intelligence artificielle|modèle))\b"
        r"[^.!?]{0,80}\bje ne (?:peux|suis|dispose|puis)\b",
        r"(?:lo siento|disculpa|como (?:una? )?(?:ia|inteligencia artificial|modelo))\b"
        r"[^.!?]{0,80}\bno (?:puedo|tengo|soy)\b",
        r"(?:desculpe|sinto muito|como (?:uma? )?(?:ia|inteligência artificial|modelo))\b"
        r"[^.!?]{0,80}\bnão (?:posso|tenho|sou)\b",
        r"(?:mi dispiace|in quanto (?:ia|modello)|come (?:ia|modello))\b"
        r"[^.!?]{0,80}\bnon (?:posso|ho|sono)\b",
        r"(?:het spijt me|als (?:een )?(?:ai|taalmodel))\b"
        r"[^.!?]{0,80}\b(?:kan ik|ik kan)\b[^.!?]{0,60}\b(?:niet|geen)\b",
        r"(?:извините|к сожалению|простите|как (?:языковая модель|ии|искусственный интеллект))"
        r"[^.!?]{0,80}\bя не (?:могу|имею|способ)",
        r"(?:很?抱歉|对不起|對不起|作为(?:一个|一名)?(?:ai|人工智能|(?:大型)?语言模型))"
        r"[^。！？]{0,40}(?:无法|不能|無法)(?:回答|提供|帮助|协助|满足|給|给|讨论|完成)",
        r"(?:申し訳|すみません|ai(?:言語モデル)?として)[^。！？]{0,60}"
        r"(?:お答え|お手伝い|提供|対応|回答)[^。！？]{0,20}(?:できません|かねます)",
        r"(?:죄송|ai(?: 언어 모델)?로서)[^.!?]{0,60}(?:도와|답변|제공|도움)[^.!?]{0,20}(?:수 없|어렵)",
    ),
    re.IGNORECASE,
)
_MOST_AFTER = 200
"""Characters after a foreign refusal that still are no answer, as long as there is no digit."""

# What may follow a refusal and is not an answer: what the model says of itself, why it refuses, where
# else to ask, and what else it offers.
_FOLLOWS = re.compile(
    _any(
        r"i\b|my\b|if you\b|if there\b|is there\b|please\b|feel free\b|let me know\b|thank|consult",
        r"you (?:can|could|may|might|should) (?:consult|contact|ask|try|reach|seek|find)",
        r"it(?:[’']s| is) (?:important|best|essential|recommended|advisable|illegal|unethical)",
        r"it(?:[’']s| is) (?:dangerous|against|not (?:appropriate|ethical|legal))",
        r"(?:this|that|such|it|doing|creating|making|providing)\b.{0,60}"
        r"\b(?:illegal|unethical|harmful|dangerous|inappropriate|guidelines|polic)",
        r"instead, (?:i|please|you)",
        r"for (?:medical|legal|financial|personalized|professional|that|this)\b",
        r"would you|can i|(?:how|what) (?:else )?can i",
    ),
    re.IGNORECASE,
)
# What leads from a refusal to an answer after all.
_OFFERS_AN_ANSWER = re.compile(
    r"\b(?:however|but (?:i can(?![’'\w]| not)|here)|here (?:is|are|[’']s)|that said|in general"
    r"|generally|i can tell you|what i can)\b",
    re.IGNORECASE,
)
# A question that asks for wording: a refusal or a closing may be what it asks for.
_ASKS_FOR_WORDING = re.compile(
    _any(
        r"\b(?:write|draft|compose|translat|rephras|rewrit|proofread|paraphras|summari[sz]|email"
        r"|e-mail|letter|dialog|script|quote|apolog|declin|refus|say no|repl(?:y|ies)|respond to"
        r"|turn down|sentence|phrase|transcri|continue|complete the)",
        r"\b(?:schreib|übersetz|formulier|brief|écri|tradui|rédig|lettre|escrib|traduc|redact"
        r"|carta|scrivi|lettera|escrev|traduz|schrijf|vertaal)",
        r"\b(?:напиши|переведи|письм)|写|翻译|翻譯|信|書い|翻訳|써|번역",
    ),
    re.IGNORECASE,
)

# Chatter: sentences that are removed where they stand first or last

_KIND = (
    r"(?:very |really |such |quite )?(?:an? )?(?:very |really )?(?:great|good|excellent|interesting"
    r"|fantastic|wonderful|important|fascinating|insightful|thoughtful)"
)
_ASSENTS = r"(?:sure(?: thing)?|certainly|of course|absolutely)\W+"
_WITH_THAT = r"(?: you)?(?: with (?:that|this|your question))?\W*"
# Politeness before an answer: praise of the question, thanks, the offer to help.
_OPENING = re.compile(
    _any(
        rf"(?:(?:what|that[’']s|that is|this is|it[’']s)\s+)?{_KIND} question(?: indeed)?\W*",
        r"thank(?:s| you)(?: so much| very much)? for"
        r" (?:your|the|asking|this)(?: \w+){0,2} ?(?:question|asking)?\W*",
        rf"(?:{_ASSENTS})?i(?:[’']d| would) be (?:happy|glad|delighted)"
        rf" to (?:help|assist|explain|answer){_WITH_THAT}",
        rf"{_ASSENTS}i can help{_WITH_THAT}",
        r"(?:das ist )?(?:eine )?(?:sehr )?(?:gute|tolle|interessante|spannende) frage\W*",
        r"(?:c[’']est )?(?:une )?(?:très )?(?:bonne|excellente) question\W*",
        r"¡?(?:es una )?(?:muy )?(?:buena|excelente|gran) pregunta\W*",
        r"(?:é uma )?(?:ótima|boa|excelente) pergunta\W*",
        r"(?:è una )?(?:ottima|bella|buona) domanda\W*",
        r"(?:dat is )?(?:een )?(?:goede|interessante) vraag\W*",
        r"(?:это )?(?:отличный|хороший|интересный) вопрос\W*",
        r"(?:这是)?(?:一)?个?(?:很|非常)?(?:好|有趣)的?问题\W*",
        r"(?:とても)?(?:いい|良い|素晴らしい)(?:ご)?質問ですね?\W*",
        r"좋은 질문(?:입니다|이에요|이네요)\W*",
    ),
    re.IGNORECASE,
)
# The user is to ask the model, not somebody else: "ask your doctor" says something.
_ASK_ME = (
    r"(?:ask(?! (?:your|the|an?) (?!question))|reach out(?! to (?!me|us))|contact (?:me|us)"
    r"|let me know|reply)"
)
_MORE = (
    r"(?:any |some |other |more |further |additional |another )*"
    r"(?:questions?|help|assistance|information|details?|clarification|explanation|examples?)"
)
# The rest of a closing, up to its mark: no digit, as a number says something.
_REST = r"\b[^.!?。！？\d]{0,80}\W*"
# Politeness after an answer: an offer of more, a hope that it helped, a wish.
_CLOSING = re.compile(
    _any(
        r"(?:please )?let me know (?:if|whether|should) (?:there(?:[’']s| is)"
        r"|you (?:have|need|want|would like|[’']d like|require))"
        rf" (?:{_MORE}|anything|something|me to|to know more){_REST}",
        r"(?:i )?(?:really )?hope (?:this|that|it|these|my)(?: \w+){0,2}"
        rf" (?:helps?|is helpful|was helpful|clarifies|answers){_REST}",
        rf"(?:please )?(?:feel free|don[’']t hesitate|do not hesitate) to {_ASK_ME}{_REST}",
        rf"if you (?:have|need|want|would like|[’']d like) (?:{_MORE}|to know more)\b"
        r"[^.!?\d]{0,60},? (?:please )?"
        rf"(?:(?:feel free|don[’']t hesitate|do not hesitate) to {_ASK_ME}|(?:just )?{_ASK_ME}"
        rf"|i[’']m here|i[’']d be (?:happy|glad)){_REST}",
        r"is there (?:anything|something) else"
        rf" (?:i can|you[’']d like|you would like|you want|you need){_REST}",
        rf"(?:do you have|are there) (?:any |other |more |further )+questions{_REST}",
        r"would you like (?:me to (?:explain|elaborate|go|provide|give|expand)"
        rf"|{_MORE}|to know more){_REST}",
        r"(?:i(?:[’']m| am) )?(?:always )?happy to help\W*",
        r"have a (?:great|nice|good|wonderful) day\W*",
        rf"ich hoffe,? (?:das|dies|diese \w+) (?:hilft|war hilfreich|beantwortet){_REST}",
        rf"(?:lass|lassen sie) (?:es )?mich (?:gerne |einfach )?wissen, (?:wenn|falls|ob){_REST}",
        rf"(?:wenn|falls) (?:du|sie|ihr) (?:noch )?(?:weitere |mehr )?fragen ha(?:st|ben|bt){_REST}",
        rf"(?:j[’']espère que (?:cela|ça|ceci)(?: vous| t[’']| te)? ?aide|n[’']hésite[zs]? pas à){_REST}",
        rf"espero que (?:esto|te|le|esta \w+)\b[^.!?\d]{{0,40}}(?:ayud|útil|sirv)\w*{_REST}",
        rf"no dud(?:es|e) en preguntar\w*{_REST}",
        rf"si (?:tienes|tiene) (?:más|otras?|alguna otra) (?:preguntas?|dudas?){_REST}",
        rf"espero (?:que isso )?(?:ter )?ajud\w*{_REST}",
        rf"spero (?:che questo|di)\b[^.!?\d]{{0,20}}(?:aiut|utile)\w*{_REST}",
        rf"se hai altre domande{_REST}",
        rf"надеюсь, (?:что )?это (?:помо|был)\w*{_REST}",
        rf"если у вас (?:есть|возникнут|остались)[^.!?\d]{{0,20}}вопрос\w*{_REST}",
        r"希望(?:这|這|以上)[^。！？\d]{0,20}(?:帮助|幫助)[^。！？\d]{0,10}\W*",
        r"(?:如果)?(?:你|您)?(?:还|還)?有(?:其他|任何|更多)(?:问题|問題|疑问)[^。！？\d]{0,30}\W*",
        r"他に(?:も)?(?:ご)?質問が[^。！？\d]{0,40}\W*",
    ),
    re.IGNORECASE,
)
# These alone may be the answer to a question for yes or no: they are chatter before another opening.
_ASSENT = re.compile(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok)\W*", re.IGNORECASE
)
_MOST_AT_A_SIDE = 3


LONGEST_REFUSAL = 2_000
"""Characters: what is longer says more than that it does not answer."""
_WINDOW = 1_000
"""Characters at the beginning and the end of a text in which chatter is looked for."""


class Trimmed(NamedTuple):
    """An answer without the chatter around it.

    Attributes:
        text: The answer; the characters that are left are the model's own.
        removed: The sentences that were removed, in order.
    """

    text: str
    removed: tuple[str, ...] = ()


def is_refusal(text: str, query: str = "") -> bool:
    """Whether a text refuses to answer, and does nothing else.

    It does where it begins with a refusal of the request and no sentence after that says anything
    on the matter. A text that quotes or mentions a refusal is none, and neither is the answer to a
    question that asks for wording, such as a letter.

    Example:
        >>> is_refusal("I'm sorry, but I can't help with that. Please consult a doctor.")
        True
        >>> is_refusal("I'm sorry, but as an AI I can't give you medical advice. However, sprinters need about 1.6 g.")
        False
        >>> is_refusal("I'm sorry to hear that. Rest for two days."), is_refusal("I can't recommend it: it is toxic.")
        (False, False)
    """
    if len(text) > LONGEST_REFUSAL or _ASKS_FOR_WORDING.search(query):
        return False
    spans = sentence_spans(text)
    sentences = [re.sub(r"[*_#]", "", text[span.start : span.end]).strip() for span in spans]
    while sentences and _MERELY_SORRY.fullmatch(sentences[0]):
        sentences.pop(0)
    if not sentences:
        return bool(spans)  # an apology and nothing else
    first, *others = sentences
    if _FOREIGN_REFUSAL.match(first):
        rest = " ".join(others)
        return len(rest) <= _MOST_AFTER and re.search(r"\d", rest) is None
    if not _REFUSAL.match(first) or _has_answer(first):
        return False
    return all(_FOLLOWS.match(each) and not _has_answer(each) for each in others)


def _has_answer(sentence: str) -> bool:
    """Whether a sentence that refuses says something on the matter, too: a value, or an offer."""
    return re.search(r"\d|:\s*\S", sentence) is not None or bool(_OFFERS_AN_ANSWER.search(sentence))


def without_chatter(text: str, query: str = "") -> Trimmed:
    """Returns an answer without openings and closings that say nothing about the question.

    Whole sentences of a kept list alone are removed, from the beginning and the end, never from
    within; what is left keeps its bytes. An answer that is chatter alone, or that a question for
    wording asks for, stays as it is.

    Example:
        >>> without_chatter("Great question! Gold is Au. Let me know if you have any other questions!")
        Trimmed(text='Gold is Au.', removed=('Great question!', 'Let me know if you have any other questions!'))
        >>> without_chatter("Sure! Let me know if the fever exceeds 39 °C.").removed
        ()
    """
    begins = text[:_WINDOW].lstrip("*_ \n")
    may_have = (_OPENING.match(begins), _ASSENT.match(begins), _CLOSING.search(text[-_WINDOW:]))
    if not any(may_have) or _ASKS_FOR_WORDING.search(query):
        return Trimmed(text)
    spans = sentence_spans(text)
    first, last = 0, len(spans)
    while first < min(last, _MOST_AT_A_SIDE):
        is_assent = _is(_ASSENT, text, spans[first]) and first + 1 < last
        if is_assent and _is(_OPENING, text, spans[first + 1]):
            first += 2
        elif _is(_OPENING, text, spans[first]):
            first += 1
        else:
            break
    while last > max(first, len(spans) - _MOST_AT_A_SIDE) and _is(_CLOSING, text, spans[last - 1]):
        last -= 1
    kept = spans[first:last]
    if len(kept) == len(spans) or not kept:
        return Trimmed(text)
    answer = text[kept[0].start : kept[-1].end]
    if re.search(r"\w", answer) is None:
        return Trimmed(text)
    removed = [text[span.start : span.end] for span in (*spans[:first], *spans[last:])]
    return Trimmed(answer, tuple(removed))


def _is(pattern: re.Pattern[str], text: str, span: Span) -> bool:
    return pattern.fullmatch(text[span.start : span.end].strip("*_ ")) is not None


@dataclass(frozen=True, kw_only=True)
class Screening:
    """What is taken for a refusal, and whether chatter around an answer is removed.

    Attributes:
        refusals: Recognize the refusals of a kept list, in eleven languages; their examples are
            rejected.
        chatter: Remove openings and closings of a kept list ("Great question!", "Let me know if you
            have any other questions.") from answers, where they are whole sentences.
        patterns: Regular expressions of your own: an answer in which one is found is a refusal.
        rule: A function of your own: from the question and the answer to whether it is a refusal.

    Raises:
        ConfigurationError: A pattern is not a regular expression, or the rule not a function.

    Example:
        >>> Screening(patterns=[r"^N/?A$"]).is_refused("Where is NRT?", "N/A")
        True
    """

    refusals: bool = True
    chatter: bool = True
    patterns: tuple[str, ...] = ()
    rule: RefusalRule | None = None

    def __post_init__(self) -> None:
        if isinstance(self.patterns, str):
            raise ConfigurationError(
                "patterns is one text instead of several",
                received=self.patterns,
                fix=f"write [{self.patterns!r}]",
            )
        object.__setattr__(self, "patterns", tuple(self.patterns))
        if self.rule is not None and not callable(self.rule):
            raise ConfigurationError(
                "The rule is not a function",
                received=self.rule,
                allowed="a function of the question and the answer",
            )
        self._own  # noqa: B018  a pattern that can't be read is an error here

    @cached_property
    def _own(self) -> tuple[re.Pattern[str], ...]:
        found = []
        for pattern in self.patterns:
            try:
                found.append(re.compile(pattern, re.IGNORECASE))
            except (re.error, TypeError) as error:
                raise ConfigurationError(
                    f"A pattern is not a regular expression: {error}", received=pattern
                ) from error
        return tuple(found)

    def is_refused(self, query: str, text: str) -> bool:
        """Whether an answer is a refusal, by the kept list or by your own patterns and rule."""
        if not text.strip():
            return False
        if self.refusals and is_refusal(text, query):
            return True
        if any(pattern.search(text) for pattern in self._own):
            return True
        return self.rule is not None and bool(self.rule(query, text))

    def trimmed(self, query: str, text: str) -> Trimmed:
        """Returns an answer without its chatter, if that is to be removed."""
        return without_chatter(text, query) if self.chatter else Trimmed(text)
