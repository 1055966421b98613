"""An inference engine as the library sees one: a program of its own that takes vLLM's or
llama.cpp's arguments and answers on loopback, or fails in the way that `FAKE_ENGINE` names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAILURE = os.environ.get("FAKE_ENGINE", "")
ANSWERS_BEFORE_DEATH = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", "--alias", default="base")
    parser.add_argument("--lora-modules", nargs="*", default=[])
    parser.add_argument("--chat-template", "--chat-template-file", required=True)
    known, _ = parser.parse_known_args()
    print("arguments", json.dumps(sys.argv[1:]), flush=True)
    if FAILURE == "exits":
        print("no memory for the weights", flush=True)
        sys.exit(3)
    with open(known.chat_template, encoding="utf-8") as template:
        assert template.read()
    names = [known.served_model_name, *(each.split("=")[0] for each in known.lora_modules)]
    if FAILURE == "other model":
        names = ["somebody-else"]
    answered = threading.Semaphore(ANSWERS_BEFORE_DEATH)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def send(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/health":
                self.send(503 if FAILURE == "never" else 200, {})
            else:
                self.send(200, {"data": [{"id": name} for name in names]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if FAILURE == "dies" and not answered.acquire(blocking=False):
                print("out of memory while it answered", flush=True)
                os._exit(9)
            text = json.dumps({"model": asked["model"], "pid": os.getpid(), "asked": asked})
            if FAILURE == "is silent":
                text = ""
            choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            self.send(200, {"choices": [choice], "usage": usage})

    ThreadingHTTPServer(("127.0.0.1", known.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
