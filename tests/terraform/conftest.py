"""Fixtures of the Terraform tests: one AWS, and what is applied to it, once after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terraform.cloud import Aws, Deployment, Terraform, copy_repository, look, readme_block
from tests.terraform.machine import bridge_address, make_certificate

HERE = Path(__file__).parent
_TIMEOUT_S = 900

# As many, as long and as odd as terraform/variables.tf lets them be.
MOST_TAGS = {f"tag{number}": "x" for number in range(45)} | {
    "ä" * 128: "東" * 256,
    "+ -=._:/@ 1 z": "+ -=._:/@ 1 z",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.terraform)
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("aws")
    make_certificate(folder)
    with Aws(folder, bridge_address()).running() as server:
        yield server


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory, aws: Aws) -> Terraform:
    """In a fresh copy of the repository; nothing is done there yet."""
    clone = tmp_path_factory.mktemp("clone") / "bourse"
    copy_repository(clone)
    return Terraform(clone, aws.endpoint)


@pytest.fixture(scope="session")
def first(aws: Aws, terraform: Terraform) -> Deployment:
    """Applied with the README's commands as written, by somebody who has tags and says yes."""
    settings = terraform.clone / "terraform" / "of_this_test.auto.tfvars.json"
    settings.write_text(json.dumps({"tags": MOST_TAGS}), "utf-8")
    done = terraform.shell(readme_block("cd terraform"), answer="yes\n")
    assert done.returncode == 0, done.stdout + done.stderr
    return look(aws, terraform)


@pytest.fixture(scope="session")
def second(first: Deployment, aws: Aws, terraform: Terraform) -> Deployment:
    """The same with other code: another greeting."""
    routes = terraform.clone / "frontend" / "http" / "routes.py"
    text = routes.read_text("utf-8")
    assert "Hello, " in text
    routes.write_text(text.replace("Hello, ", "Welcome back, "), "utf-8")
    terraform("apply", "-auto-approve")
    return look(aws, terraform)
