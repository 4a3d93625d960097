"""A fresh copy of this repository, and an AWS of this machine to apply it to."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from stack.parts import ROOT
from stack.waiting import wait_for
from tests.support.ports import free_ports

REGION = "us-east-1"
DEBIAN = "136693071363"

# Where Terraform finds its provider is the machine's affair; all else that could be set is not.
_OF_THE_MACHINE = {"PATH", "HOME", "TMPDIR", "TF_CLI_CONFIG_FILE", "TF_PLUGIN_CACHE_DIR"}


def image(
    number: int, name: str, owner: str = DEBIAN, architecture: str = "x86_64"
) -> dict[str, Any]:
    """One as moto wants it described; the higher its number, the newer."""
    return {
        "ami_id": f"ami-0{number:016x}",
        "name": name,
        "owner_id": owner,
        "architecture": architecture,
        "creation_date": f"2026-{number:02}-01T00:00:00.000Z",
        "description": name,
        "hypervisor": "xen",
        "image_location": name,
        "image_type": "machine",
        "platform": None,
        "public": True,
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
        "sriov": "simple",
        "state": "available",
        "virtualization_type": "hvm",
    }


WANTED_IMAGE = image(5, "debian-13-amd64-20260501-1234")
IMAGES = [
    image(4, "debian-13-amd64-20260401-1234"),
    WANTED_IMAGE,
    # Newer, and each of them wrong.
    image(6, "debian-12-amd64-20260601-1234"),
    image(7, "debian-13-arm64-20260701-1234", architecture="arm64"),
    image(8, "debian-13-amd64-20260801-1234", owner="999999999999"),
]


def tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def copy_repository(to: Path) -> None:
    """What a fresh clone has, and what is being worked on in it."""
    for name in tracked_files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)


def readme_block(first_word: str) -> str:
    """The one block of commands in terraform/README.md that begins with these words."""
    text = (ROOT / "terraform" / "README.md").read_text("utf-8")
    [block] = [
        one for one in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if one.startswith(first_word)
    ]
    return str(block)


def plain(said: str) -> str:
    """Terraform's words without its frame, colours, quotes and line breaks."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)
    return " ".join(re.sub(r"[│╷╵\"]", " ", said).split())


@dataclass(frozen=True)
class Deployment:
    """What an apply left behind, as boto3 saw it then."""

    outputs: dict[str, str]
    instance: dict[str, Any]
    user_data: str
    volumes: dict[str, dict[str, Any]]  # by the name that they are attached under
    role_arn: str
    bundle: bytes
    objects: list[str]

    @property
    def bucket(self) -> str:
        return str(re.search(r"bundle_url='https://([^.]+)\.", self.user_data)[1])


class Terraform:
    """Terraform in a copy of the repository, without its user's settings."""

    def __init__(self, clone: Path, endpoint: str) -> None:
        self.clone = clone
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in _OF_THE_MACHINE},
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CHECKPOINT_DISABLE": "1",
        }

    def shell(
        self, script: str, folder: str = ".", answer: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs commands as somebody would paste them, who then types `answer`."""
        return subprocess.run(
            ["sh", "-eu", "-c", script],
            cwd=self.clone / folder,
            env=self.environment,
            input=answer,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def __call__(self, *arguments: str, expected: int = 0) -> str:
        """What it printed. Raises AssertionError if it exits otherwise than expected."""
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self.clone / "terraform",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expected, f"terraform {' '.join(arguments)}:\n{said}"
        return said


class Aws:
    """moto's server in a process, with Debian's images."""

    def __init__(self, folder: Path, gateway: str | None = None) -> None:
        self.folder = folder
        self.port = free_ports(3)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.inside = gateway and f"{gateway}:{self.port + 1}"

    @contextmanager
    def running(self) -> Iterator[Aws]:
        images = self.folder / "images.json"
        images.write_text(json.dumps(IMAGES), "utf-8")
        inside = ["--inside", self.inside, "--folder", str(self.folder)] if self.inside else []
        with (self.folder / "aws.log").open("w") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.terraform.aws_server",
                    f"127.0.0.1:{self.port}",
                    *inside,
                ],
                cwd=ROOT,
                env={**os.environ, "MOTO_AMIS_PATH": str(images)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                wait_for(self._answers, 60, lambda: (self.folder / "aws.log").read_text("utf-8"))
                yield self
            finally:
                process.kill()
                process.communicate()

    def _answers(self) -> bool:
        try:
            return bool(self._open("/moto-api/data.json").status == 200)
        except OSError:
            return False

    def _open(self, path: str, data: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        text = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.endpoint + path, data, text)  # noqa: S310 - our own
        with opener.open(request, timeout=10) as answer:
            answer.read()
            return answer

    def check_rights(self, wanted: bool) -> None:
        """Whether requests must be signed by somebody known who may do what they ask for."""
        self._open("/moto-api/reset-auth", b"0" if wanted else b"inf")

    def client(self, service: str, **credentials: str) -> Any:
        mine = credentials or {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, region_name=REGION, endpoint_url=self.endpoint, **mine)

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def iam(self) -> Any:
        return self.client("iam")


def look(aws: Aws, terraform: Terraform) -> Deployment:
    """What is there now."""
    printed = terraform.shell("terraform output -json", "terraform").stdout
    outputs = {name: value["value"] for name, value in json.loads(printed).items()}
    [instance] = instances(aws, outputs["instance_id"])
    encoded = aws.ec2.describe_instance_attribute(
        InstanceId=outputs["instance_id"], Attribute="userData"
    )["UserData"]["Value"]
    attached = {
        one["DeviceName"]: one["Ebs"]["VolumeId"] for one in instance["BlockDeviceMappings"]
    }
    volumes = aws.ec2.describe_volumes(VolumeIds=list(attached.values()))["Volumes"]
    by_id = {volume["VolumeId"]: volume for volume in volumes}
    profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    [role] = aws.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    [bucket] = [bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]]
    objects = [one["Key"] for one in aws.s3.list_objects_v2(Bucket=bucket)["Contents"]]
    return Deployment(
        outputs=outputs,
        instance=instance,
        user_data=base64.b64decode(encoded).decode(),
        volumes={name: by_id[volume] for name, volume in attached.items()},
        role_arn=role["Arn"],
        bundle=aws.s3.get_object(Bucket=bucket, Key=objects[0])["Body"].read(),
        objects=objects,
    )


def instances(aws: Aws, *ids: str) -> list[dict[str, Any]]:
    described = aws.ec2.describe_instances(InstanceIds=list(ids))["Reservations"]
    return [instance for reservation in described for instance in reservation["Instances"]]
