"""A server that scores as vLLM and SGLang do, with a real model, on loopback; or fails on command."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from domainfusion.models import LlamaModel
from domainfusion.models.encoding import encode_text
from domainfusion.types import Message

Fault = Callable[[str, dict[str, Any], dict[str, Any]], Any]
"""Changes an answer, given the path, what was asked and the right answer; an int is a status."""


def as_it_is(path: str, asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    return answer


class ScoringServer:
    """Serves until the end of its `with` block.

    Args:
        model: The model that it scores with.
        tokenizing: The model whose tokenizer it has.
        fault: What it does to its answers.
        most: The most log-probabilities at a place that it gives.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        tokenizing: LlamaModel | None = None,
        fault: Fault = as_it_is,
        most: int = 400,
    ) -> None:
        self.model, self.fault, self.most = model, fault, most
        self.tokenizing = tokenizing or model
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._one = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def scored(self) -> int:
        """How many rows it was asked to score."""
        return sum(path in ("/v1/completions", "/generate") for path, _ in self.asked)

    def __enter__(self) -> ScoringServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer._one:
                    outer.asked.append((self.path, asked))
                    answer = outer._answer(self.path, asked)
                status = answer if isinstance(answer, int) else answer.pop("status", 200)
                body = json.dumps({"error": "no"} if isinstance(answer, int) else answer).encode()
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str, asked: dict[str, Any]) -> Any:
        routes = {
            "/tokenize": self._tokenize,
            "/v1/completions": self._completion,
            "/v1/chat/completions": self._answer_in_words,
            "/generate": self._generate,
        }
        if path not in routes:
            return 404
        found = routes[path](asked)
        return found if isinstance(found, int) else self.fault(path, asked, found)

    def _tokenize(self, asked: dict[str, Any]) -> dict[str, Any]:
        if "prompt" in asked:
            tokens = encode_text(self.tokenizing.tokenizer, asked["prompt"])
        else:
            turns = tuple(Message(turn["role"], turn["content"]) for turn in asked["messages"])
            tokens = self.tokenizing.encode(turns, reply=asked["add_generation_prompt"])
        said: dict[str, Any] = {"tokens": tokens, "count": len(tokens), "max_model_len": 512}
        if asked.get("return_token_strs"):
            said["token_strs"] = self.tokenizing.tokenizer.convert_ids_to_tokens(tokens)
        return said

    def _answer_in_words(self, asked: dict[str, Any]) -> dict[str, Any]:
        turns = tuple(Message(turn["role"], turn["content"]) for turn in asked["messages"])
        text = f"The answer is {sum(map(ord, turns[-1].content))}."
        usage = {
            "prompt_tokens": len(self.tokenizing.encode(turns)),
            "completion_tokens": len(encode_text(self.tokenizing.tokenizer, text)) + 1,
        }
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _distributions(self, row: list[int]) -> torch.Tensor:
        (hidden,) = self.model.hidden_states([row])
        return self.model.project(hidden).log_softmax(-1)

    def _completion(self, asked: dict[str, Any]) -> Any:
        row, count = asked["prompt"], asked["prompt_logprobs"]
        if count > self.most:
            message = f"Requested prompt logprobs of {count}, greater than max allowed: {self.most}"
            return {"status": 400, "error": {"message": message, "code": 400}}
        listed: list[Any] = [None]
        for token, log_p in zip(row[1:], self._distributions(row)[:-1], strict=True):
            best = log_p.topk(count).indices.tolist()
            own = [*best, *([] if token in best else [token])]
            listed.append(
                {
                    str(each): {
                        "logprob": float(log_p[each]),
                        "rank": int((log_p > log_p[each]).sum()) + 1,
                        "decoded_token": self.model.tokenizer.decode([each]),
                    }
                    for each in own
                }
            )
        choice = {"index": 0, "text": "!", "finish_reason": "length", "prompt_logprobs": listed}
        usage = {"prompt_tokens": len(row), "completion_tokens": 1}
        return {"object": "text_completion", "choices": [choice], "usage": usage}

    def _generate(self, asked: dict[str, Any]) -> Any:
        row, count, start = (
            asked["input_ids"],
            asked["top_logprobs_num"],
            asked["logprob_start_len"],
        )
        distributions = self._distributions(row)
        own: list[Any] = [[None, row[start], None]]
        top: list[Any] = [None]
        for place in range(start + 1, len(row)):
            log_p = distributions[place - 1]
            own.append([float(log_p[row[place]]), row[place], None])
            best = log_p.topk(count)
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            top.append([[value, token, None] for value, token in pairs])
        about = {
            "prompt_tokens": len(row),
            "completion_tokens": 1,
            "input_token_logprobs": own,
            "input_top_logprobs": top,
        }
        return {"text": "!", "meta_info": about}
