"""The real HTTP server with fakes behind it, as a process."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from pathlib import Path

from stack.waiting import wait_for

ROOT = Path(__file__).parents[4]


class ServerProcess:
    """`tests.unit.frontend.http.fakes` as a process, with everything it says in one file."""

    def __init__(self, output: Path, **settings: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.frontend.http.fakes"],
                cwd=ROOT,
                env=os.environ | {"HTTP_ADDRESS": "127.0.0.1:0", "WEB_CONCURRENCY": "1"} | settings,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[0])
        self.wait_for(r"Booting worker with pid: (\d+)")

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        def find() -> list[str]:
            assert self.process.poll() is None, self.output
            found = re.findall(pattern, self.output)
            return found if len(found) >= count else []

        return wait_for(find, 30, lambda: f"{pattern}: {self.output}")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)
