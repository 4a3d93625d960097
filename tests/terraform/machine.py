"""A Debian 13 machine in a container, which boots with user data as an instance does."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.terraform.cloud import REGION, Aws, Deployment

HERE = Path(__file__).parent
BASE_IMAGES = ("debian:trixie-slim", "python:3.13-slim", "redis:8", "haproxy:3.0")
USER_DATA = "/var/lib/cloud/instance/scripts/part-001"
EVERY_BOOT = "/var/lib/cloud/scripts/per-boot/bourse"
STATUS = "/var/lib/bourse/status"

_PREFIX = os.environ.get("BOURSE_TEST_PREFIX", "bourse-test")
# As cloud-init runs scripts: no HOME, no terminal.
_ENVIRONMENT = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def docker(*arguments: str, timeout_s: float = 300) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def bridge_address() -> str | None:
    """Where containers reach this machine; None where they do not, or no engine answers."""
    try:
        found = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
        with socket.socket() as trial:
            trial.bind((found, 0))
    except (AssertionError, OSError):
        return None
    return found


def make_certificate(folder: Path) -> None:
    """`cert.pem` and `key.pem` for the names of S3 in the region; its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an AWS for tests")])
    names = [f"s3.{REGION}.amazonaws.com", f"*.s3.{REGION}.amazonaws.com"]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@dataclass(frozen=True)
class Template:
    """What machines are made from: an image, and a file with the base images of the Dockerfiles."""

    image: str
    base_images: Path

    @classmethod
    def build(cls, folder: Path) -> Template:
        image, base_images = f"{_PREFIX}-machine", folder / "base-images.tar"
        recipe = HERE / "Dockerfile.machine"
        for base in BASE_IMAGES:
            if not docker("images", "--quiet", base):
                docker("pull", "--quiet", base)
        docker("build", "--quiet", "--tag", image, "--file", str(recipe), str(HERE))
        docker("save", "--output", str(base_images), *BASE_IMAGES)
        return cls(image, base_images)

    def remove(self) -> None:
        docker("image", "rm", self.image)
        self.base_images.unlink()


class Disk:
    """An EBS volume: a file, in a volume that outlives the machines."""

    def __init__(self, volume_id: str) -> None:
        self.volume = f"{_PREFIX}-disk-{secrets.token_hex(4)}"
        self.link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"

    def remove(self) -> None:
        docker("volume", "rm", "--force", self.volume)


class Machine:
    """One instance, from its start to its termination."""

    def __init__(self, template: Template, deployment: Deployment, disk: Disk, aws: Aws) -> None:
        self.name = f"{_PREFIX}-machine-{secrets.token_hex(4)}"
        self._template, self._deployment = template, deployment
        self._disk, self._aws = disk, aws
        self._is_gone = False

    def start(self) -> None:
        """Up to the moment when cloud-init would run the user data."""
        region = f"s3.{REGION}.amazonaws.com"
        outputs = self._deployment.outputs
        hosts = [f"{self._deployment.bucket}.{region}", region, outputs["public_dns"]]
        docker(
            *("run", "--detach", "--privileged", "--init", "--name", self.name),
            *(f"--add-host={host}:127.0.0.1" for host in hosts),
            # Its engine cannot stack layers on layers.
            *("--volume", "/var/lib/docker"),
            *("--volume", f"{self._disk.volume}:/disk"),
            *("--volume", f"{self._template.base_images}:/images.tar:ro"),
            self._template.image,
        )
        self.put(self._aws.folder / "cert.pem", "/usr/local/share/ca-certificates/aws.crt")
        self.run("update-ca-certificates")
        self.run(f"mkdir -p $(dirname {USER_DATA})")
        self.write(USER_DATA, self._deployment.user_data)
        self.run(f"chmod 700 {USER_DATA}; touch /etc/fstab")
        self._power_on()

    def _power_on(self) -> None:
        host, _, port = str(self._aws.inside).partition(":")
        s3, metadata = f"{host}:{port}", f"{host}:{int(port) + 1}"
        self.run(
            f"""
            [ -e /disk/data.img ] || truncate -s 512M /disk/data.img
            mkdir -p /dev/disk/by-id
            ln -sf "$(losetup --find --show /disk/data.img)" {self._disk.link}
            ip address add 169.254.169.254/32 dev lo
            setsid socat tcp-listen:443,bind=127.0.0.1,fork,reuseaddr tcp:{s3} &
            setsid socat tcp-listen:80,bind=169.254.169.254,fork,reuseaddr tcp:{metadata} &
            """
        )

    def reboot(self) -> None:
        """Everything that ran is gone, then systemd mounts and starts what is enabled."""
        docker("restart", "--time", "5", self.name)
        self._power_on()
        self.run("systemctl enable --now docker")

    def terminate(self) -> None:
        """Takes it away, and its disk off."""
        if self._is_gone:
            return
        self._is_gone = True
        try:
            self._detach()
        finally:
            docker("rm", "--force", "--volumes", self.name)

    def _detach(self) -> None:
        """Takes the disk off: now, or by itself when what is mounted goes with the machine."""
        self.run(f"losetup --detach $(readlink -f {self._disk.link})")

    # ------------------------------------------------------------ what it does

    def execute(self, script: str) -> tuple[int, str]:
        """Exit code and everything printed of a script run as cloud-init would: into one pipe."""
        # Out of two pipes the engine mixes the lines.
        one_pipe = ["bash", "-c", f"exec {script} 2>&1"]
        done = subprocess.run(
            ["docker", "exec", self.name, *_ENVIRONMENT, *one_pipe],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        if self.run("mountpoint --quiet /srv/bourse && echo mounted || true"):
            self._detach()
        return done.returncode, done.stdout

    def run(self, commands: str) -> str:
        return docker("exec", self.name, "bash", "-euo", "pipefail", "-c", commands)

    def put(self, file: Path, path: str) -> None:
        docker("cp", str(file), f"{self.name}:{path}")

    def fetch(self, path: str, file: Path) -> None:
        docker("cp", f"{self.name}:{path}", str(file))

    def write(self, path: str, text: str) -> None:
        subprocess.run(
            ["docker", "exec", "-i", self.name, "tee", path],
            input=text,
            text=True,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def status(self) -> str:
        return self.run(f"cat {STATUS}")

    def stack(self) -> list[str]:
        """Each container: which it is, since when it runs, of which image."""
        listed = self.run(
            "docker inspect $(docker ps --all --quiet) "
            "--format '{{.Name}} {{.Id}} {{.State.StartedAt}} {{.Image}} {{.State.Health.Status}}'"
        )
        return sorted(listed.splitlines())

    def images(self) -> list[str]:
        return sorted(self.run("docker images --quiet --no-trunc").splitlines())

    def settings(self) -> str:
        """Digests of what the boot may have written outside its own folders."""
        return self.run(
            f"find /etc {EVERY_BOOT} /opt/bourse -type f -exec sha256sum {{}} + | sort -k 2"
        )

    def curl(self, command: str) -> object:
        """A printed command, as it is; what it printed, read as JSON where it is that."""
        said = self.run(command)
        return json.loads(said) if said.startswith("{") else said
