# A VPC with one public subnet. If `subnet_id` names an existing one, neither is made.

locals {
  own_network = var.subnet_id == null ? 1 : 0
  subnet_id   = one(concat(aws_subnet.public[*].id, data.aws_subnet.existing[*].id))
  vpc_id      = one(concat(aws_vpc.own[*].id, data.aws_subnet.existing[*].vpc_id))
  zone        = one(concat(aws_subnet.public[*].availability_zone, data.aws_subnet.existing[*].availability_zone))
}

data "aws_subnet" "existing" {
  count = 1 - local.own_network
  id    = var.subnet_id
}

# Not every zone of a region has every type.
data "aws_ec2_instance_type_offerings" "zones" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.instance_type]
  }

  lifecycle {
    postcondition {
      condition     = length(self.locations) > 0
      error_message = "There is no ${var.instance_type} in ${var.region}: write another instance_type, such as \"m6i.large\", or another region."
    }
  }
}

resource "aws_vpc" "own" {
  #checkov:skip=CKV2_AWS_11:Flow logs cost more than they tell of one host with one open port.
  count                = local.own_network
  cidr_block           = "10.26.111.0/24"
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Nothing uses it. It has no rules, so nothing can use it by accident.
resource "aws_default_security_group" "closed" {
  count  = local.own_network
  vpc_id = aws_vpc.own[0].id
  tags   = { Name = "${var.name}-unused" }
}

resource "aws_subnet" "public" {
  count                   = local.own_network
  vpc_id                  = aws_vpc.own[0].id
  cidr_block              = aws_vpc.own[0].cidr_block
  availability_zone       = sort(data.aws_ec2_instance_type_offerings.zones.locations)[0]
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-public" }

  lifecycle {
    # Chosen once: in another zone the data volume would have to be made anew.
    ignore_changes = [availability_zone]
  }
}

resource "aws_internet_gateway" "own" {
  count  = local.own_network
  vpc_id = aws_vpc.own[0].id
  tags   = { Name = var.name }
}

resource "aws_route_table" "public" {
  count  = local.own_network
  vpc_id = aws_vpc.own[0].id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "out" {
  count                  = local.own_network
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.own[0].id
}

resource "aws_route_table_association" "public" {
  count          = local.own_network
  subnet_id      = aws_subnet.public[0].id
  route_table_id = aws_route_table.public[0].id
}
