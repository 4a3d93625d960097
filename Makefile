PYTHON ?= .venv/bin/python

.PHONY: proto
proto: ## regenerate the gRPC stubs
	$(PYTHON) -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. proto/bourse.proto
