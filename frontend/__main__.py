"""`python -m frontend`: the HTTP server."""

from __future__ import annotations

import sys

from common.settings import load_settings
from frontend.settings import FrontendSettings
from frontend.thread_limit import too_few_threads


def main() -> None:
    settings = load_settings(FrontendSettings, "frontend")
    if problem := too_few_threads(settings):
        print(f"frontend: {problem}", file=sys.stderr)
        raise SystemExit(2)
    # gunicorn reads WEB_CONCURRENCY when imported, and fails with a traceback if it is wrong.
    from frontend.http.server import HttpServer  # noqa: PLC0415 - so only after the settings
    from frontend.parts import build_parts  # noqa: PLC0415 - imports gunicorn

    HttpServer(settings, build_parts).run()


if __name__ == "__main__":
    main()
