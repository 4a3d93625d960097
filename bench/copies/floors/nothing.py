"""The second container of the hop floor: a gRPC server whose one call does nothing.

Runs by itself in the image of an order replica.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc

from proto import bourse_pb2

_THREADS = 32


def main() -> None:
    nothing = grpc.unary_unary_rpc_method_handler(
        lambda request, _context: request,
        request_deserializer=bourse_pb2.Empty.FromString,
        response_serializer=bourse_pb2.Empty.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bourse.Floor", {"Nothing": nothing}),)
    )
    server.add_insecure_port("0.0.0.0:50051")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
