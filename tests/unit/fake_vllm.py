# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A program that starts and answers like `vllm serve`, as far as this package uses it.

Its first line of output has its command line and environment. Additional arguments: ``--fail`` ends it at once,
``--slow`` delays each reply for ten minutes, ``--reply TEXT`` is its reply, with the request's values in it.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any


def write_fake_vllm(path: Path) -> str:
    """Write this module as an executable; returns its path as text."""
    path.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
    path.chmod(0o755)
    return str(path)


def main(words: list[str]) -> None:
    given = dict(pairwise(words))
    port = int(given["--port"])
    variables = {"offline": "HF_HUB_OFFLINE", "gpus": "CUDA_VISIBLE_DEVICES"}
    started = {"words": words, **{key: os.environ.get(name) for key, name in variables.items()}}
    sys.stdout.write(json.dumps(started) + "\n")
    sys.stdout.flush()
    if "--fail" in words:
        sys.exit("CUDA out of memory")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send({"data": [{"id": given["--served-model-name"]}]})

        def do_POST(self) -> None:
            if "--slow" in words:
                time.sleep(600)
            asked = {"seed": 0, "stop": None} | json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = asked["seed"] % 10**6
            text = given.get("--reply", "{port} {model} {stop}").format(**asked, port=port, number=number)
            self.send({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

        def send(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
