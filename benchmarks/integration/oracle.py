"""An integration model made of the labels: it reads, relates, writes and verifies as a perfect
model would, or a noisy one.

What is lost with the perfect one is lost by the plumbing. The noisy one shows that nothing breaks
where a model is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from domainfusion.distillation.metrics import normalize
from domainfusion.distillation.text.sentences import sentences
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Generation, Sampling

Step = Literal["read", "relate", "write", "verify"]
STEPS: dict[str, Step] = {
    "List what each of them claims": "read",
    "Which claims of different experts": "relate",
    "State each of these claims once": "write",
    "Answer each of these questions with yes or no": "verify",
}
"""What the prompt of a step says, and no other."""

_CLAIM = re.compile(r'^(?:- )?(?P<id>\d+\.\d+) (?P<quote>"(?:[^"\\]|\\.)*")', re.MULTILINE)
_SENTENCE = re.compile(r'^(?P<number>\d+)\. (?P<text>"(?:[^"\\]|\\.)*")$', re.MULTILINE)
_CHECK = re.compile(r"^(?P<id>[cxds][\d.]+): ", re.MULTILINE)
_FENCED = re.compile(
    r"^\[(?P<domain>[^\]\n]+) expert\]\n(?P<fence>`{3,})\n(?P<text>.*?)\n(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_OPEN = re.compile(
    r"^- (?:On .*: )?the experts disagree, and nobody knows who is right\. .*: (?P<sides>.*)\.$",
    re.MULTILINE,
)
_ID = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Labels:
    """What is known of a case.

    Attributes:
        query: The question.
        contradicts: Whether two quotes of different experts contradict each other on a labeled
            point.
        same: Whether they say the same.
        owner: The domain that the disputed point belongs to; empty where nobody owns it.
        hedged: Whether a quote is hedged.
    """

    query: str
    contradicts: Callable[[str, str], bool]
    same: Callable[[str, str], bool]
    owner: str = ""
    hedged: Callable[[str], bool] = field(default=lambda quote: False)


def labels_of_written(case: Mapping[str, Any], *, owner: str = "") -> Labels:
    """Returns the labels of a case of `written.jsonl`, whose contradictions and repetitions are
    pairs of patterns.

    Args:
        case: The case.
        owner: The domain that its disputed point belongs to; by default what the case says.
    """
    return Labels(
        query=case["query"],
        contradicts=lambda one, other: any(
            _matches(pair, one, other) for pair in case["conflicts"]
        ),
        same=lambda one, other: any(_matches(pair, one, other) for pair in case["dup"]),
        owner=owner or _owner_of_written(case),
    )


def labels_of_constructed(case: Mapping[str, Any]) -> Labels:
    """Returns the labels of a constructed case, whose sides are sentences by domain."""

    def contradicts(one: str, other: str) -> bool:
        return any(_are_of(point["sides"], one, other) for point in case["conflicts"])

    def same(one: str, other: str) -> bool:
        sides = [
            [normalize(text) for text in side.values()]
            for point in case["conflicts"]
            for side in point["sides"]
        ]
        return any(_in(normalize(one), side) and _in(normalize(other), side) for side in sides)

    return Labels(query=case["query"], contradicts=contradicts, same=same, owner=case["asks"] or "")


def _owner_of_written(case: Mapping[str, Any]) -> str:
    """Returns whose side is right, where a case says it; the expert who owns the point is right in
    it.
    """
    if "right" not in case or not case["conflicts"]:
        return ""
    pattern = case["conflicts"][0][case["right"][0]]
    return next(
        domain
        for domain, text in case["responses"].items()
        if re.search(pattern, text, re.IGNORECASE)
    )


def _matches(pair: Sequence[str], one: str, other: str) -> bool:
    return any(
        re.search(first, one, re.IGNORECASE) and re.search(second, other, re.IGNORECASE)
        for first, second in (pair, pair[::-1])
    )


def _are_of(sides: Sequence[Mapping[str, str]], one: str, other: str) -> bool:
    said = [[normalize(text) for text in side.values()] for side in sides]
    one, other = normalize(one), normalize(other)
    return any(_in(one, said[place]) and _in(other, said[1 - place]) for place in (0, 1))


def _in(quote: str, said: Sequence[str]) -> bool:
    return any(quote in text or text in quote for text in said)


class Oracle:
    """Answers every step from the labels of the cases.

    Args:
        labels: The labels of all cases; a prompt shows the query of one.
        writes_json: Whether it can be held to a JSON schema, and so says which claims a sentence
            rests on.
        noise: Share of the calls that go wrong; see `Noise`.
        seed: Seed of what goes wrong.
    """

    def __init__(
        self,
        labels: Sequence[Labels],
        *,
        writes_json: bool = True,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.name = "oracle" if not noise else f"noisy oracle ({noise:g})"
        self.fingerprint = f"{self.name}/{seed}/{writes_json}"
        self.calls: list[tuple[Step, str]] = []
        self._labels = sorted(labels, key=lambda each: len(each.query), reverse=True)
        self._noise = noise
        self._seed = seed
        if writes_json:
            self.with_json_schema = lambda json_schema: self

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`."""
        replies = []
        for place, conversation in enumerate(conversations):
            prompt = conversation[0].content
            step = next(step for phrase, step in STEPS.items() if phrase in prompt)
            labels = next(each for each in self._labels if each.query in prompt)
            self.calls.append((step, labels.query))
            reply = {"read": _read, "relate": _relate, "write": _write, "verify": _verify}[step](
                prompt, labels
            )
            random = Random(f"{self._seed}/{step}/{prompt}/{len(conversation)}")
            if random.random() < self._noise:
                reply = random.choice(NOISES)(reply, random)
            replies.append(Generation(text=reply))
            if on_result is not None:
                on_result(place, replies[-1])
        return replies


def _read(prompt: str, labels: Labels) -> str:
    claims = [
        {
            "expert": found["domain"],
            "quote": sentence,
            "scope": "",
            "hedged": labels.hedged(sentence),
        }
        for found in _FENCED.finditer(prompt)
        for sentence in sentences(found["text"])
    ]
    return json.dumps({"claims": claims}, ensure_ascii=False)


def _relate(prompt: str, labels: Labels) -> str:
    claims = [(found["id"], json.loads(found["quote"])) for found in _CLAIM.finditer(prompt)]
    relations: list[dict[str, Any]] = []
    for place, (first, quote) in enumerate(claims):
        for second, other in claims[place + 1 :]:
            if first.split(".")[0] == second.split(".")[0]:
                continue
            kind = (
                "contradicts"
                if labels.contradicts(quote, other)
                else "same"
                if labels.same(quote, other)
                else ""
            )
            if kind:
                relations.append(
                    {
                        "first": first,
                        "second": second,
                        "kind": kind,
                        "about": "the point",
                        "owner": labels.owner,
                        "values": [],
                    }
                )
    return json.dumps({"relations": relations}, ensure_ascii=False)


def _write(prompt: str, labels: Labels) -> str:
    """Writes what the plan states in the order of the responses, with the marks of blocks where
    they stand.
    """
    plan = prompt.rpartition("State each of these claims once")[2]
    claims = {found["id"]: json.loads(found["quote"]) for found in _CLAIM.finditer(plan)}
    marks = re.findall(r"\[\[.+? \d+\]\]", plan)
    open_points = [found["sides"] for found in _OPEN.finditer(plan)]
    disputed = {name for sides in open_points for name in _ID.findall(sides)}
    pieces: list[tuple[str, list[str]]] = []
    for found in _FENCED.finditer(prompt):
        placed = [(found["text"].find(mark), mark, "") for mark in marks]
        placed += [
            (found["text"].find(quote), quote, name)
            for name, quote in claims.items()
            if name not in disputed
        ]
        for place, text, name in sorted(placed):
            if place >= 0 and (not name or (text, [name]) not in pieces):
                pieces.append((f"\n\n{text}\n\n" if not name else text, [name] if name else []))
    for sides in open_points:
        said = "; ".join(f"“{claims[name]}”" for name in _ID.findall(sides) if name in claims)
        pieces.append((f"The experts disagree, as one says {said}.", _ID.findall(sides)))
    if "Answer with JSON alone" not in plan:
        return " ".join(text for text, _ in pieces)
    return json.dumps(
        {"sentences": [{"text": text, "claims": names} for text, names in pieces]},
        ensure_ascii=False,
    )


def _verify(prompt: str, labels: Labels) -> str:
    """Answers each check: a claim is stated where its words stand in the answer."""
    asked = prompt.rpartition("Answer each of these questions")[2]
    claims = {found["id"]: json.loads(found["quote"]) for found in _CLAIM.finditer(prompt)}
    said = {found["number"]: json.loads(found["text"]) for found in _SENTENCE.finditer(prompt)}
    text = normalize(" ".join(said.values()))
    answers = []
    for found in _CHECK.finditer(asked):
        kind, name = found["id"][0], found["id"][1:]
        if kind == "c":
            holds = normalize(claims[name]) in text
        elif kind == "x":
            holds = normalize(claims[name]) in text and "disagree" not in text
        elif kind == "d":
            holds = "disagree" in text
        else:
            holds = (
                any(_overlap(claim, said[name]) for claim in claims.values())
                or "disagree" in said[name]
            )
        answers.append({"id": found["id"], "answer": "yes" if holds else "no", "reason": ""})
    return json.dumps({"checks": answers})


def _overlap(claim: str, sentence: str) -> bool:
    one, other = _bare(claim), _bare(sentence)
    return one in other or other in one


def _bare(text: str) -> str:
    """Returns a text without the mark of a list's item and the punctuation around it."""
    return re.sub(r"^\W*(?:\d+[.)]\s)?", "", normalize(text)).strip(" .“”。")


# What goes wrong


def _cut(reply: str, random: Random) -> str:
    return reply[: random.randrange(len(reply) + 1)]


def _without_end(reply: str, random: Random) -> str:
    return (
        reply[: len(reply) // 2]
        + random.choice(('{"a": ', "[", '{"claims": [{"quote": "', "\\")) * 3000
    )


def _flipped(reply: str, random: Random) -> str:
    swaps = {
        "contradicts": "same",
        "same": "contradicts",
        "yes": "no",
        "no": "yes",
        "true": "false",
    }
    return re.sub(r"\b(contradicts|same|yes|no|true)\b", lambda found: swaps[found[0]], reply)


def _invented(reply: str, random: Random) -> str:
    return _ID.sub(lambda found: f"{random.randrange(9)}.{random.randrange(99)}", reply)


def _prose(reply: str, random: Random) -> str:
    return random.choice(
        (
            "I'm sorry, I can't do that.",
            "Both experts make good points.",
            "Sure! Here you go:",
            "",
            "null",
            "42",
        )
    )


def _shuffled(reply: str, random: Random) -> str:
    words = reply.split(" ")
    random.shuffle(words)
    return " ".join(words)


def _other_words(reply: str, random: Random) -> str:
    return re.sub(
        r"\b(?:the|is|a|of)\b", lambda found: random.choice(("this", "was", "an", "for")), reply
    )


NOISES: tuple[Callable[[str, Random], str], ...] = (
    _cut,
    _without_end,
    _flipped,
    _invented,
    _prose,
    _shuffled,
    _other_words,
)
