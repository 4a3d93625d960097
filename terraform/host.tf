# The machine, its two volumes and its address.

data "aws_ami" "debian" {
  count       = var.ami_id == null ? 1 : 0
  owners      = ["136693071363"] # Debian's account, https://wiki.debian.org/Cloud/AmazonEC2Image
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-13-amd64-*"]
  }
  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

# A new value replaces the host. A newer Debian image alone does not.
resource "terraform_data" "ami_id" {
  input = var.ami_id
}

# The region of the first apply. In another one Terraform finds none of its resources, forgets them, and makes
# new ones, with new books.
resource "terraform_data" "region" {
  input = var.region

  lifecycle {
    ignore_changes = [input]
  }
}

locals {
  user_data = templatefile("${path.module}/boot.sh.tftpl", {
    release       = local.release
    region        = var.region
    bundle_url    = "https://${aws_s3_bucket.bundles.bucket_regional_domain_name}/${aws_s3_object.bundle.key}"
    data_disk     = "nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.data.id, "-", "")}"
    ssm_agent_url = coalesce(var.ssm_agent_url, "https://s3.${var.region}.amazonaws.com/amazon-ssm-${var.region}/latest/debian_amd64/amazon-ssm-agent.deb")
  })
}

resource "aws_instance" "host" {
  #checkov:skip=CKV_AWS_126:Five-minute metrics are enough for a single host; detailed ones are paid for.
  ami                    = var.ami_id != null ? var.ami_id : data.aws_ami.debian[0].id
  instance_type          = var.instance_type
  subnet_id              = local.subnet_id
  vpc_security_group_ids = [aws_security_group.host.id]
  iam_instance_profile   = aws_iam_instance_profile.host.name
  ebs_optimized          = true
  tags                   = { Name = var.name }

  # Changed code is a new bundle, hence new user data, hence a new machine.
  user_data                   = local.user_data
  user_data_replace_on_change = true

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # One hop does not reach a container: only the host itself can use the role.
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    volume_type           = "gp3"
    volume_size           = var.root_volume_gib
    delete_on_termination = true
    tags                  = { Name = "${var.name}-root" }
  }

  lifecycle {
    # Without it every new image of Debian's would replace the host at the next apply.
    ignore_changes       = [ami]
    replace_triggered_by = [terraform_data.ami_id]

    precondition {
      condition     = contains(data.aws_ec2_instance_type_offerings.zones.locations, local.zone)
      error_message = "There is no ${var.instance_type} in ${local.zone}, where the subnet is: write another instance_type, such as \"m6i.large\", or another subnet_id."
    }
    precondition {
      condition     = aws_ebs_volume.data.availability_zone == local.zone
      error_message = "The data volume is in ${aws_ebs_volume.data.availability_zone}, and the subnet in ${local.zone}. A volume does not move, and a new one would be empty: write a subnet_id in ${aws_ebs_volume.data.availability_zone}, or take the data along as terraform/README.md says under \"Another zone\"."
    }
    precondition {
      condition     = terraform_data.region.output == var.region
      error_message = "The host and its data are in ${terraform_data.region.output}. Terraform would lose sight of them in ${var.region}, not move them: write region = \"${terraform_data.region.output}\", or take another workspace for a second copy, or destroy this one first."
    }
  }

  # It reads the bundle with these as soon as it boots.
  depends_on = [aws_iam_role_policy.host, aws_route.out]
}

resource "aws_ebs_volume" "data" {
  #checkov:skip=CKV_AWS_189:Encrypted with the account's own EBS key; one more key is one more thing to lose.
  availability_zone = local.zone
  size              = var.data_volume_gib
  snapshot_id       = var.data_snapshot_id
  type              = "gp3"
  encrypted         = true
  tags              = { Name = "${var.name}-data" }

  lifecycle {
    # A later change of these variables must not make the volume anew. A condition of the host's checks that
    # both are in the same zone.
    ignore_changes = [snapshot_id, availability_zone]
  }
}

resource "aws_volume_attachment" "data" {
  # On Nitro the name does not show; boot finds the disk by the volume's id.
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data.id
  instance_id = aws_instance.host.id
  # So that nothing is written when the disk is detached.
  stop_instance_before_detaching = true
}

resource "aws_eip" "host" {
  domain     = "vpc"
  instance   = aws_instance.host.id
  tags       = { Name = var.name }
  depends_on = [aws_internet_gateway.own]
}
