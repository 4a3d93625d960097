# What is planned by default.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "the_host" {
  command = plan

  assert {
    condition     = aws_instance.host.instance_type == "m5a.large" && aws_instance.host.ami == "ami-0deb0000000000001"
    error_message = "an m5a.large of Debian's image"
  }
  assert {
    condition     = data.aws_ami.debian[0].owners == tolist(["136693071363"]) && data.aws_ami.debian[0].most_recent
    error_message = "the newest image of Debian's own account"
  }
  assert {
    condition     = aws_instance.host.user_data_replace_on_change
    error_message = "changed user data makes a new host"
  }
  assert {
    condition     = aws_instance.host.metadata_options[0].http_tokens == "required" && aws_instance.host.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "IMDSv2 only, and not from containers"
  }
  assert {
    condition     = aws_instance.host.root_block_device[0].encrypted && aws_instance.host.root_block_device[0].volume_type == "gp3" && aws_instance.host.root_block_device[0].volume_size == 20
    error_message = "an encrypted gp3 root of 20 GiB"
  }
  assert {
    condition     = aws_ebs_volume.data.encrypted && aws_ebs_volume.data.type == "gp3" && aws_ebs_volume.data.size == 10 && aws_ebs_volume.data.availability_zone == "us-east-1a"
    error_message = "an encrypted gp3 data volume of 10 GiB, in the zone of the subnet"
  }
  assert {
    condition     = aws_volume_attachment.data.stop_instance_before_detaching
    error_message = "the host stops before its disk goes"
  }
  assert {
    condition     = aws_eip.host.domain == "vpc"
    error_message = "an address of its own"
  }
}

run "what_is_open" {
  command = plan

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.http : "${rule.ip_protocol} ${rule.from_port}-${rule.to_port} ${rule.cidr_ipv4}"] == ["tcp 26111-26111 0.0.0.0/0"]
    error_message = "26111 is open, and nothing else"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_egress_rule.web : "${rule.ip_protocol} ${rule.from_port}-${rule.to_port}"]) == toset(["tcp 80-80", "tcp 443-443"])
    error_message = "the host reaches the web"
  }
  assert {
    condition     = aws_subnet.public[0].map_public_ip_on_launch == false
    error_message = "nothing else in the subnet gets a public address"
  }
}

run "the_bucket" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.bundles.block_public_acls,
      aws_s3_bucket_public_access_block.bundles.block_public_policy,
      aws_s3_bucket_public_access_block.bundles.ignore_public_acls,
      aws_s3_bucket_public_access_block.bundles.restrict_public_buckets,
    ])
    error_message = "nothing in it can be public"
  }
  assert {
    condition     = aws_s3_bucket.bundles.force_destroy && aws_s3_bucket_versioning.bundles.versioning_configuration[0].status == "Enabled"
    error_message = "versioned, and gone with `terraform destroy`"
  }
  assert {
    condition     = aws_s3_object.bundle.key == "bundles/${output.release}.tar.gz" && can(regex("^[0-9a-f]{64}$", output.release))
    error_message = "a bundle's key is made from what is in it"
  }
}

run "the_outputs" {
  command = apply

  # Nothing is packed: the mocked bucket takes a file that is not there.
  override_resource {
    target = terraform_data.bundle
  }
  override_resource {
    target = aws_eip.host
    values = { public_dns = "ec2-192-0-2-1.compute-1.amazonaws.com" }
  }
  override_resource {
    target = aws_instance.host
    values = { id = "i-0123456789abcdef0" }
  }
  override_resource {
    target = aws_ebs_volume.data
    values = { id = "vol-0123456789abcdef0" }
  }
  override_resource {
    target = aws_s3_bucket.bundles
    values = { bucket_regional_domain_name = "bourse.s3.us-east-1.amazonaws.com", arn = "arn:aws:s3:::bourse" }
  }

  assert {
    condition     = output.url == "http://ec2-192-0-2-1.compute-1.amazonaws.com:26111"
    error_message = "the address that answers"
  }
  assert {
    condition     = alltrue([for path in ["/hello?name=user", "/stocks?stockname=stock1", "/orders", "/orders?order-number=1"] : strcontains(output.curl, "curl '${output.url}${path}'")])
    error_message = "a command for each request"
  }
  assert {
    condition     = output.session_command == "aws ssm start-session --region us-east-1 --target i-0123456789abcdef0"
    error_message = "the command of Session Manager"
  }
  assert {
    condition     = strcontains(output.log_command, "get-console-output --region us-east-1 --instance-id i-0123456789abcdef0")
    error_message = "the command for the log"
  }
  assert {
    condition = alltrue([for line in [
      "readonly release='${output.release}'",
      "readonly bundle_url='https://bourse.s3.us-east-1.amazonaws.com/bundles/${output.release}.tar.gz'",
      "readonly data_disk='/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0'",
      "readonly ssm_agent_url='https://s3.us-east-1.amazonaws.com/amazon-ssm-us-east-1/latest/debian_amd64/amazon-ssm-agent.deb'",
    ] : strcontains(aws_instance.host.user_data, line)])
    error_message = "boot is told what to fetch, from where, and which disk is the data's"
  }
}
