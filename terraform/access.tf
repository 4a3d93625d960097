# Who reaches the host, and what the host itself may do.

locals {
  port = 26111 # the one that compose.yaml publishes
}

resource "aws_security_group" "host" {
  name_prefix = "${var.name}-"
  description = "Bourse: its HTTP port from outside, packages and images from inside"
  vpc_id      = local.vpc_id
  tags        = { Name = var.name }

  lifecycle {
    # A host keeps its old group until it has the new one.
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  for_each          = toset(var.allowed_cidrs)
  security_group_id = aws_security_group.host.id
  description       = "Bourse over HTTP"
  ip_protocol       = "tcp"
  from_port         = local.port
  to_port           = local.port
  cidr_ipv4         = each.value
  tags              = { Name = "${var.name}-http" }
}

# Debian's mirrors are on port 80 (apt checks signatures); PyPI, the image registry, S3 and Session Manager on
# 443. The VPC's own DNS, clock and metadata need no rule.
resource "aws_vpc_security_group_egress_rule" "web" {
  for_each          = { http = 80, https = 443 }
  security_group_id = aws_security_group.host.id
  description       = "Packages, images, the bundle, Session Manager"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = "0.0.0.0/0"
  tags              = { Name = "${var.name}-${each.key}" }
}

data "aws_iam_policy_document" "is_ec2" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "host" {
  #checkov:skip=CKV_AWS_111:Session Manager's actions know no resources; they reach nothing but the instance's own sessions.
  #checkov:skip=CKV_AWS_356:The same.
  statement {
    sid       = "ReadBundles"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.bundles.arn}/${local.bundle_prefix}*"]
  }

  # What the agent needs for sessions, and no more: Amazon's AmazonSSMManagedInstanceCore would also
  # let it read every parameter of the account.
  statement {
    sid = "SessionManager"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role" "host" {
  name_prefix        = "${var.name}-"
  description        = "The Bourse host: reads its bundle, takes sessions"
  assume_role_policy = data.aws_iam_policy_document.is_ec2.json
}

resource "aws_iam_role_policy" "host" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.host.id
  policy      = data.aws_iam_policy_document.host.json
}

resource "aws_iam_instance_profile" "host" {
  name_prefix = "${var.name}-"
  role        = aws_iam_role.host.name
}
