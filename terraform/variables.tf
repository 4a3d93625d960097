# Every variable has a default, so that plain `terraform apply` works. What is refused here is
# refused before anything is made.

variable "region" {
  description = "AWS region that everything is in."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is \"${var.region}\": write the name of a region, such as \"us-east-1\" (the default) or \"eu-central-1\"; a zone such as \"us-east-1a\" is not one."
  }
}

variable "name" {
  description = "What the resources are called, and their tag Project. A second copy in the same account takes another."
  type        = string
  default     = "bourse"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}$", var.name))
    error_message = "name is \"${var.name}\": write 2 to 24 small letters, digits and hyphens, with a letter first, such as \"bourse\" (the default) or \"bourse-2\"."
  }
}

# These tags go on every kind of resource, so they keep to what the strictest kind takes: IAM does not tell
# "Team" from "team", and takes letters, digits, spaces and _.:/=+-@ only; EC2 takes 50 tags, three of them ours.
# Tags without a value are changed at every apply by the provider, though they are as they should be.
variable "tags" {
  description = "Further tags for everything that can have them."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(var.tags) <= 47
    error_message = "tags has ${length(var.tags)} tags: write 47 at most. AWS takes 50 for a resource, and Name, Project and ManagedBy are set already."
  }

  validation {
    condition     = alltrue([for key in keys(var.tags) : can(regex("^[\\p{L}\\p{N} _.:/=+@-]{1,128}$", key)) && trimspace(key) == key])
    error_message = "tags has keys that AWS does not take: ${join(", ", [for key in keys(var.tags) : "\"${key}\"" if !(can(regex("^[\\p{L}\\p{N} _.:/=+@-]{1,128}$", key)) && trimspace(key) == key)])}. Write 1 to 128 letters, digits, spaces and _.:/=+-@, with no space at either end, such as { team = \"markets\" }."
  }

  validation {
    condition     = alltrue([for value in values(var.tags) : can(regex("^[\\p{L}\\p{N} _.:/=+@-]{1,256}$", value)) && try(trimspace(value), "") == value])
    error_message = "tags has values that AWS does not take, under ${join(", ", [for key, value in var.tags : "\"${key}\"" if !(can(regex("^[\\p{L}\\p{N} _.:/=+@-]{1,256}$", value)) && try(trimspace(value), "") == value)])}. Write 1 to 256 letters, digits, spaces and _.:/=+-@, with no space at either end, such as { team = \"markets\" }."
  }

  validation {
    condition     = alltrue([for text in concat(keys(var.tags), [for value in values(var.tags) : value if value != null]) : !startswith(lower(text), "aws:")])
    error_message = "tags has a key or a value that starts with \"aws:\", which AWS keeps for itself: write it without, such as { team = \"markets\" }."
  }

  validation {
    condition     = length(setintersection(["name", "project", "managedby"], [for key in keys(var.tags) : lower(key)])) == 0
    error_message = "tags has Name, Project or ManagedBy, in small letters or capitals. Those are set already, the first two from the variable name: leave them out."
  }

  validation {
    condition     = length(distinct([for key in keys(var.tags) : lower(key)])) == length(var.tags)
    error_message = "tags has keys that differ only in capitals, which IAM takes for the same key: ${join(", ", [for key in keys(var.tags) : "\"${key}\"" if length([for other in keys(var.tags) : other if lower(other) == lower(key)]) > 1])}. Leave all but one of them out."
  }
}

variable "instance_type" {
  description = "Type of the host: x86-64 on Nitro, with 4 GiB of memory at least. The limits of all containers together are 2.8 GiB."
  type        = string
  default     = "m5a.large"

  validation {
    condition     = can(regex("^(t3a?|[cmr]5a?|[cmr][67][ai])\\.(large|[0-9]*xlarge)$", var.instance_type))
    error_message = "instance_type is \"${var.instance_type}\": write one of the families t3, t3a, m5, m5a, m6i, m6a, m7i, m7a or the same of c and r, in size large or above, such as \"m5a.large\" (the default) or \"m6i.xlarge\". ARM types (t4g, m7g) do not run the amd64 image, and smaller sizes have too little memory."
  }
}

variable "ami_id" {
  description = "Image of the host, Debian 13 amd64. Without it, the newest that Debian has published when the host is made."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id is \"${coalesce(var.ami_id, "null")}\": write the id of a Debian 13 amd64 image in this region, such as \"ami-0123456789abcdef0\", or leave it out for the newest one."
  }
}

variable "subnet_id" {
  description = "An existing public subnet for the host: its route table leads to an internet gateway. Without it, a VPC with one is made."
  type        = string
  default     = null

  validation {
    condition     = var.subnet_id == null || can(regex("^subnet-[0-9a-f]{8,17}$", var.subnet_id))
    error_message = "subnet_id is \"${coalesce(var.subnet_id, "null")}\": write the id of a public subnet in this region, such as \"subnet-0123456789abcdef0\", or leave it out to have a VPC made."
  }
}

variable "allowed_cidrs" {
  description = "IPv4 ranges that may reach port 26111. The default is everyone, so that the printed commands work from anywhere; the service asks nobody who they are."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) >= 1 && length(var.allowed_cidrs) <= 50
    error_message = "allowed_cidrs has ${length(var.allowed_cidrs)} ranges: write 1 to 50, such as [\"203.0.113.7/32\"] for one address or [\"0.0.0.0/0\"] (the default) for everyone."
  }

  validation {
    condition     = alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "allowed_cidrs has what is no IPv4 range: ${join(", ", [for cidr in var.allowed_cidrs : "\"${cidr}\"" if !can(cidrnetmask(cidr))])}. Write an address and the length of its prefix, such as \"203.0.113.7/32\" for one address or \"203.0.113.0/24\" for its network."
  }

  validation {
    condition     = alltrue([for cidr in var.allowed_cidrs : try(cidrsubnet(cidr, 0, 0) == cidr, true)])
    error_message = "allowed_cidrs has addresses within a range instead of the range. Write ${join(", ", [for cidr in var.allowed_cidrs : "\"${cidrsubnet(cidr, 0, 0)}\" instead of \"${cidr}\"" if try(cidrsubnet(cidr, 0, 0) != cidr, false)])}."
  }
}

variable "root_volume_gib" {
  description = "Size of the root volume in GiB: system, code and images. It goes with the instance."
  type        = number
  default     = 20

  validation {
    condition     = var.root_volume_gib == floor(var.root_volume_gib) && var.root_volume_gib >= 12 && var.root_volume_gib <= 1024
    error_message = "root_volume_gib is ${var.root_volume_gib}: write a whole number of GiB from 12 to 1024, such as 20 (the default)."
  }
}

variable "data_volume_gib" {
  description = "Size of the data volume in GiB: the catalog and the order logs. It may grow later, never shrink."
  type        = number
  default     = 10

  validation {
    condition     = var.data_volume_gib == floor(var.data_volume_gib) && var.data_volume_gib >= 1 && var.data_volume_gib <= 16384
    error_message = "data_volume_gib is ${var.data_volume_gib}: write a whole number of GiB from 1 to 16384, such as 10 (the default)."
  }
}

variable "data_snapshot_id" {
  description = "Snapshot that a new data volume starts from. A volume that exists stays as it is."
  type        = string
  default     = null

  validation {
    condition     = var.data_snapshot_id == null || can(regex("^snap-[0-9a-f]{8,17}$", var.data_snapshot_id))
    error_message = "data_snapshot_id is \"${coalesce(var.data_snapshot_id, "null")}\": write the id of a snapshot in this region, such as \"snap-0123456789abcdef0\", or leave it out to start empty."
  }
}

variable "ssm_agent_url" {
  description = "Where boot gets the package of the Session Manager agent. Without it, Amazon's bucket of the region."
  type        = string
  default     = null

  validation {
    condition     = var.ssm_agent_url == null || can(regex("^https://[^\\s'\"]+\\.deb$", var.ssm_agent_url))
    error_message = "ssm_agent_url is \"${coalesce(var.ssm_agent_url, "null")}\": write the https:// address of an amd64 .deb, such as \"https://mirror.example.com/amazon-ssm-agent.deb\", or leave it out for Amazon's."
  }
}
