# What a mocked AWS answers, where an answer of random letters would not do.

mock_data "aws_ami" {
  defaults = { id = "ami-0deb0000000000001" }
}

mock_data "aws_ec2_instance_type_offerings" {
  defaults = { locations = ["us-east-1b", "us-east-1a"] }
}

mock_data "aws_subnet" {
  defaults = { availability_zone = "us-east-1a" }
}

mock_data "aws_iam_policy_document" {
  defaults = { json = "{}" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/bourse" }
}
