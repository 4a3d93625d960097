"""`python -m frontend`: the HTTP server."""

from __future__ import annotations

from common.settings import load_settings
from frontend.settings import FrontendSettings


def main() -> None:
    settings = load_settings(FrontendSettings, "frontend")
    # gunicorn reads WEB_CONCURRENCY when imported, and fails with a traceback if it is wrong.
    from frontend.http.server import HttpServer  # noqa: PLC0415 - so only after the settings
    from frontend.parts import build_parts  # noqa: PLC0415 - imports gunicorn

    HttpServer(settings, build_parts).run()


if __name__ == "__main__":
    main()
