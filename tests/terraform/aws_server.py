"""An AWS of this machine: moto's, and what an instance sees of AWS besides.

Run as a process of its own, for moto reads its settings when it is imported:

    python -m tests.terraform.aws_server 127.0.0.1:5000
    python -m tests.terraform.aws_server 127.0.0.1:5000 --inside 172.17.0.1:5001 --folder FOLDER

The second also listens where an instance's traffic is brought to: over TLS, with `cert.pem` and
`key.pem` of the folder, as any host name of AWS; and one port above, without TLS, as the metadata
service. That one hands out the credentials in `role.json`, to those who fetched a token for it.

It ends when its input ends. So it does not outlive the process that started it.
"""

from __future__ import annotations

import argparse
import secrets
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ROLE = "the-role"
_PREFIX = "/latest/meta-data/iam/security-credentials/"


class Metadata:
    """IMDSv2: nothing without a token, and no token by anything but PUT."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokens: set[str] = set()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, text = self._answer(Request(environ))
        return Response(text, status=status, mimetype="text/plain")(environ, start)

    def _answer(self, request: Request) -> tuple[HTTPStatus, str]:
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            if "X-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
                return HTTPStatus.BAD_REQUEST, ""
            token = secrets.token_hex(8)
            self._tokens.add(token)
            return HTTPStatus.OK, token
        if request.headers.get("X-aws-ec2-metadata-token") not in self._tokens:
            return HTTPStatus.UNAUTHORIZED, ""
        if request.path == _PREFIX:
            return HTTPStatus.OK, ROLE
        if request.path == _PREFIX + ROLE:
            return HTTPStatus.OK, (self._folder / "role.json").read_text("utf-8")
        return HTTPStatus.NOT_FOUND, ""


def amazons_files(folder: Path, otherwise: Wsgi) -> Wsgi:
    """What anyone may read at s3.REGION.amazonaws.com: the files of `folder`/public."""

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        if not request.host.startswith("s3."):
            return otherwise(environ, start)
        file = folder / "public" / request.path.rpartition("/")[2]
        found = file.is_file()
        answer = Response(file.read_bytes() if found else b"", status=200 if found else 404)
        return answer(environ, start)

    return application


def serve(address: str, port_offset: int, application: Wsgi, tls: ssl.SSLContext | None) -> None:
    host, _, port = address.partition(":")
    server = make_server(host, int(port) + port_offset, application, threaded=True, ssl_context=tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--inside")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    moto: Wsgi = DomainDispatcherApplication(create_backend_app)
    serve(given.address, 0, moto, tls=None)
    if given.inside:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(given.folder / "cert.pem", given.folder / "key.pem")
        serve(given.inside, 0, amazons_files(given.folder, moto), tls)
        serve(given.inside, 1, Metadata(given.folder), tls=None)
    sys.stdin.read()


if __name__ == "__main__":
    main()
