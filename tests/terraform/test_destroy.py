"""`terraform destroy`, by somebody who says yes: nothing is left. After all that needs it there."""

from __future__ import annotations

import pytest

from tests.terraform.cloud import Aws, Deployment, Terraform, instances


@pytest.mark.slow
def test_destroy_leaves_nothing(second: Deployment, aws: Aws, terraform: Terraform) -> None:
    done = terraform.shell("terraform destroy", "terraform", answer="yes\n")
    assert done.returncode == 0, done.stdout + done.stderr
    states = {one["State"]["Name"] for one in instances(aws)}
    assert states == {"terminated"}
    assert aws.s3.list_buckets()["Buckets"] == []
    assert aws.ec2.describe_volumes()["Volumes"] == []
    assert aws.ec2.describe_addresses()["Addresses"] == []
    assert aws.iam.list_roles()["Roles"] == []
    assert [vpc for vpc in aws.ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]] == []
