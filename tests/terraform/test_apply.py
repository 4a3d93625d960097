"""`terraform apply` against an AWS of this machine: what is there then, as AWS itself says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from typing import Any

import pytest

from tests.terraform.cloud import (
    WANTED_IMAGE,
    Aws,
    Deployment,
    Terraform,
    instances,
    plain,
)
from tests.terraform.conftest import MOST_TAGS

pytestmark = pytest.mark.slow


def tags(thing: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing["Tags"]}


def test_the_machine(first: Deployment) -> None:
    assert first.instance["InstanceType"] == "m5a.large"
    assert first.instance["ImageId"] == WANTED_IMAGE["ami_id"]
    assert first.instance["State"]["Name"] == "running"
    assert "KeyName" not in first.instance
    options = first.instance["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)


def test_the_volumes(first: Deployment) -> None:
    root, data = first.volumes["/dev/xvda"], first.volumes["/dev/sdf"]
    assert (root["Encrypted"], root["VolumeType"], root["Size"]) == (True, "gp3", 20)
    assert (data["Encrypted"], data["VolumeType"], data["Size"]) == (True, "gp3", 10)
    assert data["VolumeId"] == first.outputs["data_volume_id"]
    kept = {
        one["DeviceName"]: one["Ebs"]["DeleteOnTermination"]
        for one in first.instance["BlockDeviceMappings"]
    }
    assert kept == {"/dev/xvda": True, "/dev/sdf": False}


def test_only_26111_is_open(first: Deployment, aws: Aws) -> None:
    [group] = first.instance["SecurityGroups"]
    [described] = aws.ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    [rule] = described["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 26111, 26111)
    assert [one["CidrIp"] for one in rule["IpRanges"]] == ["0.0.0.0/0"]
    assert not rule["Ipv6Ranges"] + rule["PrefixListIds"] + rule["UserIdGroupPairs"]
    out = {
        (one["IpProtocol"], one["FromPort"], one["ToPort"])
        for one in described["IpPermissionsEgress"]
    }
    assert out == {("tcp", 80, 80), ("tcp", 443, 443)}


def test_the_network(first: Deployment, aws: Aws) -> None:
    vpc = first.instance["VpcId"]
    mine = [{"Name": "vpc-id", "Values": [vpc]}]
    [gateway] = aws.ec2.describe_internet_gateways(
        Filters=[{"Name": "attachment.vpc-id", "Values": [vpc]}]
    )["InternetGateways"]
    tables = aws.ec2.describe_route_tables(Filters=mine)["RouteTables"]
    [public] = [
        table
        for table in tables
        for link in table["Associations"]
        if link.get("SubnetId") == first.instance["SubnetId"]
    ]
    routes = {route["DestinationCidrBlock"]: route["GatewayId"] for route in public["Routes"]}
    assert routes["0.0.0.0/0"] == gateway["InternetGatewayId"]
    unused = [
        group
        for group in aws.ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
        if group["GroupName"] == "default"
    ]
    assert [group["IpPermissions"] + group["IpPermissionsEgress"] for group in unused] == [[]]


def test_the_address(first: Deployment, aws: Aws) -> None:
    [address] = aws.ec2.describe_addresses()["Addresses"]
    assert address["InstanceId"] == first.outputs["instance_id"]
    assert (
        first.outputs["public_dns"]
        == f"ec2-{address['PublicIp'].replace('.', '-')}.compute-1.amazonaws.com"
    )


def test_the_role_may_read_bundles_and_take_sessions(first: Deployment, aws: Aws) -> None:
    name = first.instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    [role] = aws.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    assert aws.iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"] == []
    [policy] = aws.iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    document = aws.iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)[
        "PolicyDocument"
    ]
    bundles, sessions = document["Statement"]
    assert (bundles["Action"], bundles["Resource"]) == (
        "s3:GetObject",
        f"arn:aws:s3:::{first.bucket}/bundles/*",
    )
    assert sorted(sessions["Action"]) == [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    ]
    [trusted] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"Service": "ec2.amazonaws.com"}


def test_the_bucket_is_private(first: Deployment, aws: Aws) -> None:
    bucket = {"Bucket": first.bucket}
    block = aws.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    assert aws.s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    [rule] = aws.s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    [owner] = aws.s3.get_bucket_ownership_controls(**bucket)["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"
    [statement] = json.loads(aws.s3.get_bucket_policy(**bucket)["Policy"])["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    # No letter of it counts by its case.
    assert statement["Action"].lower() == "s3:*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert sorted(statement["Resource"]) == [
        f"arn:aws:s3:::{first.bucket}{end}" for end in ("", "/*")
    ]


def test_the_bundle_is_what_its_key_says(first: Deployment) -> None:
    release = first.outputs["release"]
    assert first.objects == [f"bundles/{release}.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(first.bundle)) as bundle:
        contents = {one.name: bundle.extractfile(one).read() for one in bundle}
    listed = contents.pop("files.sha256")
    assert hashlib.sha256(listed).hexdigest() == release
    digests = [
        f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)
    ]
    assert "".join(digests) == listed.decode()
    assert {"compose.yaml", "Makefile", "frontend/http/routes.py", "stack/uv.sh"} <= set(contents)


def test_the_user_data(first: Deployment) -> None:
    assert first.user_data.startswith("#!/bin/bash\n")
    assert len(first.user_data) < 16_384
    for line in (
        f"readonly release='{first.outputs['release']}'",
        f"readonly bundle_url='https://{first.bucket}.s3.us-east-1.amazonaws.com/{first.objects[0]}'",
        "readonly data_disk='/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_"
        f"{first.outputs['data_volume_id'].replace('-', '')}'",
    ):
        assert line in first.user_data.splitlines()


def test_everything_has_all_tags(first: Deployment, aws: Aws) -> None:
    wanted = {"Project": "bourse", "ManagedBy": "terraform"} | MOST_TAGS
    [address] = aws.ec2.describe_addresses()["Addresses"]
    [vpc] = aws.ec2.describe_vpcs(VpcIds=[first.instance["VpcId"]])["Vpcs"]
    role = aws.iam.get_role(RoleName=first.role_arn.rpartition("/")[2])["Role"]
    for thing in (first.instance, *first.volumes.values(), address, vpc, role):
        assert wanted.items() <= tags(thing).items(), thing
    bucket_tags = aws.s3.get_bucket_tagging(Bucket=first.bucket)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in bucket_tags} == wanted
    bundle = {"Bucket": first.bucket, "Key": first.objects[0]}
    assert aws.s3.get_object_tagging(**bundle)["TagSet"] == []  # S3 takes ten at most


def test_the_outputs(first: Deployment) -> None:
    url = f"http://{first.outputs['public_dns']}:26111"
    assert first.outputs["url"] == url
    paths = [re.match(r"curl '(.*?)'", line)[1] for line in first.outputs["curl"].splitlines()]
    assert paths == [
        f"{url}/hello?name=user",
        f"{url}/stocks?stockname=stock1",
        f"{url}/orders",
        f"{url}/orders?order-number=1",
    ]
    assert first.outputs["instance_id"] in first.outputs["session_command"]
    assert first.outputs["instance_id"] in first.outputs["log_command"]


def test_the_same_code_is_nothing_to_do_even_without_its_tar(
    first: Deployment, terraform: Terraform
) -> None:
    packed = list((terraform.clone / "terraform" / ".terraform").glob("bundle-*.tar.gz"))
    assert packed
    for tar in packed:
        tar.unlink()
    for name in ("frontend/__pycache__/x.pyc", "README.md", "tests/conftest.py", "notes.txt"):
        file = terraform.clone / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("not of the code", "utf-8")
    said = terraform("plan", "-detailed-exitcode", "-input=false")
    assert "No changes." in said


def test_other_code_is_another_machine_on_the_same_data(
    first: Deployment, second: Deployment, aws: Aws, terraform: Terraform
) -> None:
    assert second.outputs["release"] != first.outputs["release"]
    assert second.outputs["instance_id"] != first.outputs["instance_id"]
    # Nothing that a client or the data knows has changed.
    for kept in ("url", "curl", "data_volume_id"):
        assert second.outputs[kept] == first.outputs[kept]
    assert second.volumes["/dev/sdf"]["VolumeId"] == first.outputs["data_volume_id"]
    assert second.objects == [f"bundles/{second.outputs['release']}.tar.gz"]
    [old] = instances(aws, first.outputs["instance_id"])
    assert old["State"]["Name"] == "terminated"
    assert "No changes." in terraform("plan", "-detailed-exitcode", "-input=false")


def test_a_subnet_in_another_zone_or_region_never_replaces_the_data(
    second: Deployment, aws: Aws, terraform: Terraform
) -> None:
    mine = second.instance["SubnetId"]
    [subnet] = aws.ec2.describe_subnets(SubnetIds=[mine])["Subnets"]
    elsewhere = [
        one
        for one in aws.ec2.describe_subnets()["Subnets"]
        if one["AvailabilityZone"] != subnet["AvailabilityZone"]
    ]
    for setting, wanted in (
        (f"subnet_id={elsewhere[0]['SubnetId']}", "A volume does not move"),
        ("region=us-west-2", "write region = us-east-1"),
    ):
        said = plain(terraform("plan", "-input=false", f"-var={setting}", expected=1))
        assert wanted in said, said


def test_the_code_from_before_is_the_release_from_before(
    first: Deployment, second: Deployment, terraform: Terraform
) -> None:
    routes = terraform.clone / "frontend" / "http" / "routes.py"
    changed = routes.read_text("utf-8")
    routes.write_text(changed.replace("Welcome back, ", "Hello, "), "utf-8")
    said = terraform.shell("echo local.release | terraform console", "terraform")
    routes.write_text(changed, "utf-8")
    assert json.loads(said.stdout) == first.outputs["release"]
