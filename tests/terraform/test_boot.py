"""The user data, run on the system it is written for, until a trade goes through; then again.

The machine is a privileged container of Debian 13 with its own engine. It gets its bundle from the
AWS of this machine, which checks the signature and what the role may do.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError

from tests.terraform.cloud import Aws, Deployment
from tests.terraform.machine import (
    EVERY_BOOT,
    USER_DATA,
    Disk,
    Machine,
    Template,
)

pytestmark = [pytest.mark.slow, pytest.mark.containers]

ORDER = {"data": {"number": 1, "name": "stock1", "type": "BUY", "quantity": 10}}
AGENT = r"""
mkdir -p /agent/DEBIAN
cat >/agent/DEBIAN/control <<EOF
Package: amazon-ssm-agent
Version: 1
Architecture: amd64
Maintainer: nobody
Description: an agent
EOF
dpkg-deb --build /agent /agent.deb
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    template = Template.build(tmp_path_factory.mktemp("images"))
    yield template
    template.remove()


@pytest.fixture(scope="module")
def disk(first: Deployment) -> Iterator[Disk]:
    disk = Disk(first.outputs["data_volume_id"])
    yield disk
    disk.remove()


@contextmanager
def launched(template: Template, deployment: Deployment, disk: Disk, aws: Aws) -> Iterator[Machine]:
    """A new instance on the disk, its bundle where its user data says it is."""
    assert aws.inside, "the engine is not of this machine: its containers do not reach this AWS"
    put_bundle(aws, deployment, deployment.bundle)
    machine = Machine(template, deployment, disk, aws)
    try:
        machine.start()
        yield machine
    finally:
        machine.terminate()


def put_bundle(aws: Aws, deployment: Deployment, bundle: bytes) -> None:
    aws.s3.create_bucket(Bucket=deployment.bucket)
    aws.s3.put_object(Bucket=deployment.bucket, Key=deployment.objects[0], Body=bundle)


@contextmanager
def rights_checked(aws: Aws) -> Iterator[None]:
    aws.check_rights(True)
    try:
        yield
    finally:
        aws.check_rights(False)


@pytest.fixture(scope="module")
def role(first: Deployment, aws: Aws) -> dict[str, str]:
    """Credentials of the host's role; the metadata service hands them out from now on."""
    role = aws.client("sts").assume_role(RoleArn=first.role_arn, RoleSessionName="host")
    given = role["Credentials"]
    document = {
        "AccessKeyId": given["AccessKeyId"],
        "SecretAccessKey": given["SecretAccessKey"],
        "Token": given["SessionToken"],
    }
    (aws.folder / "role.json").write_text(json.dumps(document), "utf-8")
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


@pytest.fixture(scope="module")
def old(
    template: Template, first: Deployment, disk: Disk, aws: Aws, role: dict[str, str]
) -> Iterator[Machine]:
    """The first instance. The tests below follow it from its first boot on."""
    with launched(template, first, disk, aws) as machine:
        yield machine


@pytest.fixture(scope="module")
def new(
    old: Machine, template: Template, second: Deployment, disk: Disk, aws: Aws
) -> Iterator[Machine]:
    """The one that replaces it: other code, the same disk. Here the agent's package can be had."""
    public = aws.folder / "public"
    public.mkdir()
    old.run(AGENT)
    old.fetch("/agent.deb", public / "amazon-ssm-agent.deb")
    old.terminate()
    with launched(template, second, disk, aws) as machine:
        yield machine


def boot(machine: Machine, aws: Aws, script: str = USER_DATA) -> str:
    """What it said. Raises AssertionError with that if it failed."""
    with rights_checked(aws):
        code, said = machine.execute(script)
    assert code == 0, said
    return said


def test_a_disk_that_holds_something_else_is_left_alone(old: Machine, disk: Disk) -> None:
    old.run(f"printf 'not yours' >{disk.link}")
    code, said = old.execute(USER_DATA)
    assert code != 0
    assert "is neither empty nor ext4" in said
    assert "bourse: FAILED while mounting the data disk" in said
    assert old.status() == "failed: mounting the data disk"
    assert old.run(f"head -c 9 {disk.link}") == "not yours"
    old.run(f"head -c 9 /dev/zero >{disk.link}")


def test_a_bundle_with_another_file_in_it_is_refused(
    old: Machine, first: Deployment, aws: Aws
) -> None:
    put_bundle(aws, first, with_other_compose_file(first.bundle))
    with rights_checked(aws):
        code, said = old.execute(USER_DATA)
    put_bundle(aws, first, first.bundle)
    assert code != 0
    assert "compose.yaml: FAILED" in said
    assert "bourse: FAILED while checking the code" in said
    assert old.status() == "failed: checking the code"
    assert old.run("docker ps --all --quiet; ls /opt") in (
        "",
        "bourse.new",
        "bourse.new\ncontainerd",
    )


def with_other_compose_file(bundle: bytes) -> bytes:
    changed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(bundle)) as before,
        tarfile.open(fileobj=changed, mode="w:gz") as after,
    ):
        for one in before:
            contents = before.extractfile(one).read()
            if one.name == "compose.yaml":
                contents += b"# and something else\n"
                one.size = len(contents)
            after.addfile(one, io.BytesIO(contents))
    return changed.getvalue()


def test_services_that_do_not_start_are_shown(old: Machine, aws: Aws) -> None:
    old.run("setsid socat tcp-listen:26111,fork exec:true &")
    with rights_checked(aws):
        code, said = old.execute(USER_DATA)
    old.run("kill $(ss -Hltnp 'sport = :26111' | grep -o 'pid=[0-9]*' | cut -d = -f 2)")
    assert code != 0
    assert "address already in use" in said
    assert "bourse: FAILED while building and starting the services" in said
    assert "bourse-catalog-1" in said
    assert "serving" in said
    assert old.status() == "failed: building and starting the services"


def test_it_boots_until_a_trade_goes_through(old: Machine, first: Deployment, aws: Aws) -> None:
    said = boot(old, aws)
    assert "bourse: no Session Manager: its agent could not be installed" in said
    assert said.splitlines()[-1] == f"bourse: ready, release {first.outputs['release']}"
    assert old.status() == f"ready: {first.outputs['release']}"
    greeting, quote, trade, order = first.outputs["curl"].splitlines()
    assert old.curl(greeting) == "Hello, user!"
    assert old.curl(quote) == {"data": {"name": "stock1", "price": 25.78, "quantity": 1000}}
    assert old.curl(trade) == {"data": {"transaction_number": 1}}
    assert old.curl(order) == ORDER


def test_the_role_may_do_no_more(
    old: Machine, first: Deployment, aws: Aws, role: dict[str, str]
) -> None:
    mine = aws.client("s3", **role)
    with rights_checked(aws):
        assert mine.get_object(Bucket=first.bucket, Key=first.objects[0])["ContentLength"] > 0
        with pytest.raises(ClientError, match="AccessDenied"):
            mine.put_object(Bucket=first.bucket, Key=first.objects[0], Body=b"")
        with pytest.raises(ClientError, match="AccessDenied"):
            mine.list_objects_v2(Bucket=first.bucket)


def test_a_second_run_changes_nothing(old: Machine, aws: Aws) -> None:
    stack, settings = old.stack(), old.settings()
    assert len(stack) == 8  # edge, two frontends, catalog, three replicas, Redis
    assert all(container.endswith(" healthy") for container in stack)
    boot(old, aws)
    assert (old.stack(), old.settings()) == (stack, settings)
    boot(old, aws, EVERY_BOOT)
    assert (old.stack(), old.settings()) == (stack, settings)


def test_after_a_reboot_everything_is_there(old: Machine, first: Deployment, aws: Aws) -> None:
    images, settings = old.images(), old.settings()
    old.reboot()
    boot(old, aws, EVERY_BOOT)
    assert old.curl(first.outputs["curl"].splitlines()[3]) == ORDER
    assert (old.images(), old.settings()) == (images, settings)
    assert old.run("mountpoint /var/lib/docker/volumes").endswith("is a mountpoint")


def test_other_code_keeps_the_orders(new: Machine, second: Deployment, aws: Aws) -> None:
    said = boot(new, aws)
    assert "no Session Manager" not in said
    assert new.run("dpkg-query --show amazon-ssm-agent") == "amazon-ssm-agent\t1"
    assert new.status() == f"ready: {second.outputs['release']}"
    greeting, quote, trade, order = second.outputs["curl"].splitlines()
    assert new.curl(greeting) == "Welcome back, user!"
    assert new.curl(order) == ORDER
    # The key was used for that order; with another it is another trade.
    assert new.curl(trade) == {"data": {"transaction_number": 1}}
    assert new.curl(trade.replace("first", "second")) == {"data": {"transaction_number": 2}}
    assert new.curl(quote) == {"data": {"name": "stock1", "price": 25.78, "quantity": 980}}
