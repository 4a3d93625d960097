"""The real HTTP server with fakes behind it, as a process."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path

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
        deadline = time.monotonic() + 30
        while len(found := re.findall(pattern, self.output)) < count:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return found

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)
