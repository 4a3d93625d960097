# A newer image of Debian's waits for the next machine; one that is asked for does not.

mock_provider "aws" {
  source = "./tests/mocks"
}

override_resource {
  target = terraform_data.bundle
}

run "a_machine" {
  assert {
    condition     = aws_instance.host.ami == "ami-0deb0000000000001"
    error_message = "of the image of that day"
  }
}

run "a_newer_image" {
  override_data {
    target = data.aws_ami.debian[0]
    values = { id = "ami-0deb0000000000002" }
  }

  assert {
    condition     = aws_instance.host.ami == "ami-0deb0000000000001" && aws_instance.host.id == run.a_machine.instance_id
    error_message = "the machine stays as it is"
  }
}

run "the_next_machine" {
  override_data {
    target = data.aws_ami.debian[0]
    values = { id = "ami-0deb0000000000002" }
  }
  plan_options {
    replace = [aws_instance.host]
  }

  assert {
    condition     = aws_instance.host.ami == "ami-0deb0000000000002" && aws_instance.host.id != run.a_machine.instance_id
    error_message = "it takes the newer image"
  }
}

run "an_image_that_is_asked_for" {
  variables { ami_id = "ami-0deb0000000000003" }

  assert {
    condition     = aws_instance.host.ami == "ami-0deb0000000000003" && aws_instance.host.id != run.the_next_machine.instance_id
    error_message = "another machine at once"
  }
  assert {
    condition     = output.data_volume_id == run.a_machine.data_volume_id
    error_message = "on the same disk"
  }
}
