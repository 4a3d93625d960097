# Each rule of each variable refuses what is wrong, and takes what is right.

# What is wrong is tried on the variables alone (tests/variables/ is a link to them), because a run
# that needs the provider takes a hundred times as long.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "region" {
  command = plan
  module { source = "./tests/variables" }
  variables { region = "us-east-1a" }
  expect_failures = [var.region]
}

run "name_with_capitals" {
  command = plan
  module { source = "./tests/variables" }
  variables { name = "Bourse" }
  expect_failures = [var.name]
}

run "name_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { name = "bourse-of-the-whole-wide-world" }
  expect_failures = [var.name]
}

run "tag_of_aws" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { "aws:team" = "markets" } }
  expect_failures = [var.tags]
}

run "tag_of_aws_in_capitals" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { "AWS:team" = "markets" } }
  expect_failures = [var.tags]
}

run "value_of_aws" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "aws:markets" } }
  expect_failures = [var.tags]
}

run "tag_that_is_ours" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { Project = "x" } }
  expect_failures = [var.tags]
}

run "tag_that_is_ours_in_small_letters" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { project = "x" } }
  expect_failures = [var.tags]
}

run "tag_name" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { name = "x" } }
  expect_failures = [var.tags]
}

run "tag_managed_by" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { MANAGEDBY = "x" } }
  expect_failures = [var.tags]
}

run "tags_that_differ_in_capitals" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "x", Team = "y" } }
  expect_failures = [var.tags]
}

run "tag_value_that_iam_refuses" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "R&D" } }
  expect_failures = [var.tags]
}

run "tag_value_with_a_line_break" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "a\nb" } }
  expect_failures = [var.tags]
}

run "tag_value_with_a_space_at_its_end" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "markets " } }
  expect_failures = [var.tags]
}

run "tag_value_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = join("", [for i in range(257) : "x"]) } }
  expect_failures = [var.tags]
}

run "tag_value_that_is_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = "" } }
  expect_failures = [var.tags]
}

run "tag_value_that_is_none" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { team = null } }
  expect_failures = [var.tags]
}

run "tag_key_that_iam_refuses" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { "team!" = "markets" } }
  expect_failures = [var.tags]
}

run "tag_key_that_is_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { "" = "markets" } }
  expect_failures = [var.tags]
}

run "tag_key_of_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { " " = "markets" } }
  expect_failures = [var.tags]
}

run "tag_key_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { (join("", [for i in range(129) : "x"])) = "markets" } }
  expect_failures = [var.tags]
}

run "too_many_tags" {
  command = plan
  module { source = "./tests/variables" }
  variables { tags = { for i in range(48) : "tag${i}" => "x" } }
  expect_failures = [var.tags]
}

run "instance_type_of_arm" {
  command = plan
  module { source = "./tests/variables" }
  variables { instance_type = "m7g.large" }
  expect_failures = [var.instance_type]
}

run "instance_type_too_small" {
  command = plan
  module { source = "./tests/variables" }
  variables { instance_type = "t3.micro" }
  expect_failures = [var.instance_type]
}

run "instance_type_before_nitro" {
  command = plan
  module { source = "./tests/variables" }
  variables { instance_type = "m4.large" }
  expect_failures = [var.instance_type]
}

run "instance_type_that_is_none" {
  command = plan
  module { source = "./tests/variables" }
  variables { instance_type = "large" }
  expect_failures = [var.instance_type]
}

run "ami_id" {
  command = plan
  module { source = "./tests/variables" }
  variables { ami_id = "debian-13" }
  expect_failures = [var.ami_id]
}

run "subnet_id" {
  command = plan
  module { source = "./tests/variables" }
  variables { subnet_id = "10.0.0.0/24" }
  expect_failures = [var.subnet_id]
}

run "no_range" {
  command = plan
  module { source = "./tests/variables" }
  variables { allowed_cidrs = [] }
  expect_failures = [var.allowed_cidrs]
}

run "too_many_ranges" {
  command = plan
  module { source = "./tests/variables" }
  variables { allowed_cidrs = [for i in range(51) : "10.0.${i}.0/24"] }
  expect_failures = [var.allowed_cidrs]
}

run "address_without_prefix" {
  command = plan
  module { source = "./tests/variables" }
  variables { allowed_cidrs = ["203.0.113.7"] }
  expect_failures = [var.allowed_cidrs]
}

run "range_of_ipv6" {
  command = plan
  module { source = "./tests/variables" }
  variables { allowed_cidrs = ["::/0"] }
  expect_failures = [var.allowed_cidrs]
}

run "address_within_a_range" {
  command = plan
  module { source = "./tests/variables" }
  variables { allowed_cidrs = ["203.0.113.7/24"] }
  expect_failures = [var.allowed_cidrs]
}

run "root_volume_too_small" {
  command = plan
  module { source = "./tests/variables" }
  variables { root_volume_gib = 8 }
  expect_failures = [var.root_volume_gib]
}

run "root_volume_too_large" {
  command = plan
  module { source = "./tests/variables" }
  variables { root_volume_gib = 2000 }
  expect_failures = [var.root_volume_gib]
}

run "root_volume_in_parts" {
  command = plan
  module { source = "./tests/variables" }
  variables { root_volume_gib = 20.5 }
  expect_failures = [var.root_volume_gib]
}

run "data_volume_too_small" {
  command = plan
  module { source = "./tests/variables" }
  variables { data_volume_gib = 0 }
  expect_failures = [var.data_volume_gib]
}

run "data_volume_too_large" {
  command = plan
  module { source = "./tests/variables" }
  variables { data_volume_gib = 20000 }
  expect_failures = [var.data_volume_gib]
}

run "data_volume_in_parts" {
  command = plan
  module { source = "./tests/variables" }
  variables { data_volume_gib = 1.5 }
  expect_failures = [var.data_volume_gib]
}

run "data_snapshot_id" {
  command = plan
  module { source = "./tests/variables" }
  variables { data_snapshot_id = "vol-0123456789abcdef0" }
  expect_failures = [var.data_snapshot_id]
}

run "ssm_agent_without_tls" {
  command = plan
  module { source = "./tests/variables" }
  variables { ssm_agent_url = "http://example.com/agent.deb" }
  expect_failures = [var.ssm_agent_url]
}

run "ssm_agent_that_leaves_its_quotes" {
  command = plan
  module { source = "./tests/variables" }
  variables { ssm_agent_url = "https://example.com/';reboot;'.deb" }
  expect_failures = [var.ssm_agent_url]
}

run "type_that_the_region_lacks" {
  command = plan
  override_data {
    target = data.aws_ec2_instance_type_offerings.zones
    values = { locations = [] }
  }
  expect_failures = [data.aws_ec2_instance_type_offerings.zones]
}

run "type_that_the_zone_of_the_subnet_lacks" {
  command = plan
  variables { subnet_id = "subnet-0123456789abcdef0" }
  override_data {
    target = data.aws_subnet.existing
    values = { availability_zone = "us-east-1e", vpc_id = "vpc-0123456789abcdef0" }
  }
  expect_failures = [aws_instance.host]
}

run "all_that_is_right" {
  command = plan
  variables {
    region = "eu-central-1"
    name   = "bourse-2"
    tags = merge({ for i in range(45) : "tag${i}" => "x" }, {
      (join("", [for i in range(128) : "ä"])) = join("", [for i in range(256) : "東"])
      "+ -=._:/@ 1 z"                         = "+ -=._:/@ 1 z"
    })
    instance_type    = "c6i.xlarge"
    ami_id           = "ami-0123456789abcdef0"
    subnet_id        = "subnet-0123456789abcdef0"
    allowed_cidrs    = ["203.0.113.7/32", "198.51.100.0/24"]
    root_volume_gib  = 12
    data_volume_gib  = 16384
    data_snapshot_id = "snap-0123456789abcdef0"
    ssm_agent_url    = "https://mirror.example.com/amazon-ssm-agent.deb"
  }
  override_data {
    target = data.aws_subnet.existing
    values = { id = "subnet-0123456789abcdef0", availability_zone = "us-east-1a", vpc_id = "vpc-0123456789abcdef0" }
  }

  assert {
    condition     = length(aws_vpc.own) == 0 && aws_instance.host.subnet_id == "subnet-0123456789abcdef0"
    error_message = "with a subnet given, no network is made"
  }
  assert {
    condition     = aws_instance.host.ami == "ami-0123456789abcdef0" && length(data.aws_ami.debian) == 0
    error_message = "with an image given, none is looked for"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.http : rule.cidr_ipv4]) == toset(["203.0.113.7/32", "198.51.100.0/24"])
    error_message = "each range has a rule, and there is no other"
  }
  assert {
    condition     = aws_ebs_volume.data.snapshot_id == "snap-0123456789abcdef0"
    error_message = "the data volume starts from the snapshot"
  }
}
