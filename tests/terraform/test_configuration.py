"""The configuration by itself: its form, its rules, and what it takes along."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.terraform.cloud import Terraform, copy_repository, plain, tracked_files

# Each is refused, and the message says what to write instead.
BAD = {
    "region": ("us-east-1a", "such as us-east-1"),
    "name": ("Bourse", "such as bourse"),
    "tags": ('{team="R&D"}', "such as { team = markets }"),
    "instance_type": ("m7g.large", "such as m5a.large"),
    "ami_id": ("debian", "such as ami-0123456789abcdef0"),
    "subnet_id": ("10.0.0.0/24", "such as subnet-0123456789abcdef0"),
    "allowed_cidrs": ('["203.0.113.7/24"]', "203.0.113.0/24 instead of 203.0.113.7/24"),
    "root_volume_gib": ("8", "from 12 to 1024, such as 20"),
    "data_volume_gib": ("0.5", "from 1 to 16384, such as 10"),
    "data_snapshot_id": ("vol-1", "such as snap-0123456789abcdef0"),
    "ssm_agent_url": ("http://x/y.deb", "such as https://mirror.example.com/"),
}
# What is in the repository and stays at home.
NOT_SHIPPED = re.compile(r"^(\.ci/|\.git\w+$|bench/|docs/|terraform/|tests/)|\.md$")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """A copy with an endpoint that nobody answers at: nothing here may ask AWS."""
    clone = tmp_path_factory.mktemp("alone") / "bourse"
    copy_repository(clone)
    terraform = Terraform(clone, "http://127.0.0.1:9")
    terraform("init")
    return terraform


def test_its_form(alone: Terraform) -> None:
    alone("fmt", "-check", "-recursive", "-diff")


def test_it_is_valid(alone: Terraform) -> None:
    alone("validate")


@pytest.mark.slow
def test_its_own_tests(alone: Terraform) -> None:
    said = plain(alone("test"))
    passed = re.search(r"Success! (\d+) passed, 0 failed\.", said)
    assert passed, said
    assert int(passed[1]) >= 30


def test_a_wrong_value_is_refused_with_what_to_write_instead(alone: Terraform) -> None:
    wrong = [f"-var={name}={value}" for name, (value, _) in BAD.items()]
    said = plain(alone("plan", "-input=false", *wrong, expected=1))
    missing = {name: wanted for name, (_, wanted) in BAD.items() if wanted not in said}
    assert not missing, said


def test_every_variable_has_a_bad_value_here_and_a_line_in_the_readme(alone: Terraform) -> None:
    folder = alone.clone / "terraform"
    variables = re.findall(r'^variable "(\w+)"', (folder / "variables.tf").read_text("utf-8"), re.M)
    assert set(variables) == set(BAD)
    readme = (folder / "README.md").read_text("utf-8")
    assert [name for name in variables if f"| `{name}` |" not in readme] == []


def test_it_ships_what_is_tracked_and_nothing_else(alone: Terraform) -> None:
    for junk in (
        "frontend/__pycache__/x.pyc",
        "frontend/.secret",
        "order/routes.py~",
        ".env",
        "top.py",
    ):
        (alone.clone / junk).parent.mkdir(exist_ok=True)
        (alone.clone / junk).write_text("x", "utf-8")
    said = alone.shell("echo 'jsonencode(local.files)' | terraform console", "terraform")
    assert said.returncode == 0, said.stderr
    shipped = json.loads(json.loads(said.stdout))
    wanted = [name for name in tracked_files() if not NOT_SHIPPED.search(name)]
    assert shipped == sorted(wanted)


def test_no_lock_file_of_one_platform_is_kept() -> None:
    assert "terraform/.terraform.lock.hcl" not in tracked_files()


def test_it_says_so_where_the_rest_of_the_repository_is_missing(
    alone: Terraform, tmp_path: Path
) -> None:
    copy_repository(tmp_path)
    (tmp_path / "compose.yaml").unlink()
    torn = Terraform(tmp_path, "http://127.0.0.1:9")
    torn("init")
    said = plain(torn("plan", "-input=false", "-target=terraform_data.bundle", expected=1))
    assert "from a clone of the whole repository" in said
