"""A model that answers from a script: a deterministic double for tests, and a way to make any
Python function an expert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Generation, Sampling, check_conversations, fingerprint

Script = Mapping[str, str] | Callable[[str], str] | str


class ScriptedModel:
    """Answers each conversation by looking up its last message.

    Args:
        script: The answers by question, a function from question to answer, or one answer to
            everything.
        name: What reports call it.
        version: Changes the fingerprint; give a new one where a function's answers change.

    Attributes:
        calls: Every conversation that it was asked, in order.

    Raises:
        ConfigurationError: The script is none of these.
        ModelError: A question is not in the script.

    Example:
        >>> from domainfusion.types import user
        >>> ScriptedModel({"2 + 2?": "4"}).generate([user("2 + 2?")])[0].text
        '4'
    """

    def __init__(self, script: Script, *, name: str = "scripted", version: str = "1") -> None:
        if not (isinstance(script, str | Mapping) or callable(script)):
            raise ConfigurationError(
                "The script can't answer",
                received=script,
                allowed="a text, a dict from question to answer, or a function of a question",
            )
        self.name = name
        self.calls: list[Conversation] = []
        self._script = script
        content = (
            dict(script)
            if isinstance(script, Mapping)
            else script
            if isinstance(script, str)
            else ""
        )
        self.fingerprint = fingerprint(["scripted", name, version, content])

    def __repr__(self) -> str:
        return f"ScriptedModel(name={self.name!r})"

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`."""
        check_conversations(conversations, sampling)
        generations = []
        for index, conversation in enumerate(conversations):
            self.calls.append(conversation)
            text = self._answer(conversation[-1].content)
            prompt_tokens = sum(len(message.content.split()) for message in conversation)
            generations.append(
                Generation(
                    text=text, prompt_tokens=prompt_tokens, completion_tokens=len(text.split())
                )
            )
            if on_result is not None:
                on_result(index, generations[-1])
        return generations

    def _answer(self, question: str) -> str:
        if isinstance(self._script, str):
            return self._script
        if callable(self._script):
            return self._script(question)
        if question not in self._script:
            raise ModelError(
                "The script has no answer to this question",
                received=question,
                fix="add it, or script a function",
            )
        return self._script[question]
