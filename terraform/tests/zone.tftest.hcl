# The data volume stays where it is. It moves to another zone only where somebody asks for that.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_resource {
  target = terraform_data.bundle
}

run "a_host_with_data" {
  assert {
    condition     = aws_ebs_volume.data.availability_zone == "us-east-1a"
    error_message = "in the zone of its subnet"
  }
}

run "a_subnet_in_another_zone" {
  command = plan
  variables { subnet_id = "subnet-0123456789abcdef0" }
  override_data {
    target = data.aws_subnet.existing
    values = { id = "subnet-0123456789abcdef0", availability_zone = "us-east-1b", vpc_id = "vpc-0123456789abcdef0" }
  }
  expect_failures = [aws_instance.host]
}

run "another_region" {
  command = plan
  variables { region = "eu-central-1" }
  expect_failures = [aws_instance.host]
}

run "a_subnet_in_the_same_zone" {
  variables { subnet_id = "subnet-0123456789abcdef0" }
  override_data {
    target = data.aws_subnet.existing
    values = { id = "subnet-0123456789abcdef0", availability_zone = "us-east-1a", vpc_id = "vpc-0123456789abcdef0" }
  }

  assert {
    condition     = aws_instance.host.subnet_id == "subnet-0123456789abcdef0"
    error_message = "the host moves"
  }
  assert {
    condition     = output.data_volume_id == run.a_host_with_data.data_volume_id
    error_message = "its data does not"
  }
}

run "a_move_with_a_snapshot" {
  variables {
    subnet_id        = "subnet-0fedcba9876543210"
    data_snapshot_id = "snap-0123456789abcdef0"
  }
  override_data {
    target = data.aws_subnet.existing
    values = { id = "subnet-0fedcba9876543210", availability_zone = "us-east-1b", vpc_id = "vpc-0123456789abcdef0" }
  }
  plan_options {
    replace = [aws_ebs_volume.data]
  }

  assert {
    condition     = aws_ebs_volume.data.availability_zone == "us-east-1b" && aws_ebs_volume.data.snapshot_id == "snap-0123456789abcdef0"
    error_message = "a new volume in the other zone, with the old one's data"
  }
  assert {
    condition     = output.data_volume_id != run.a_host_with_data.data_volume_id
    error_message = "the old volume goes"
  }
}
