# The code of this repository, as a tar in a private bucket. Its key is made from the content of the files,
# which Terraform reads at plan time. So the same code has the same key, and the plan is empty.

locals {
  root = "${path.module}/.."

  # What the host runs. Documents, tests and this folder stay here: changing them deploys nothing.
  # A name that is not listed is not shipped.
  shipped = setunion(
    fileset(local.root, "{.dockerignore,Dockerfile.*,LICENSE,Makefile,compose.yaml,compose.ha.yaml,pyproject.toml,uv.lock}"),
    fileset(local.root, "{catalog,client,common,edge,faults,frontend,order,postgres,proto,stack}/**"),
  )

  # Nor caches, hidden files, and what editors leave.
  files = [
    for path in sort(local.shipped) : path
    if !can(regex("/(__pycache__/|\\.)|(\\.pyc|\\.sw.|~|\\.md)$", path))
  ]

  # As `sha256sum --check` reads it. It travels in the bundle; its own digest is the release.
  manifest = join("", [for path in local.files : "${filesha256("${local.root}/${path}")}  ${path}\n"])
  release  = sha256(local.manifest)

  bundle_prefix = "bundles/"
  bundle_file   = "${path.module}/.terraform/bundle-${local.release}.tar.gz"
}

# The tar is needed only while it is uploaded, and can be deleted later.
resource "terraform_data" "bundle" {
  triggers_replace = local.release

  lifecycle {
    precondition {
      condition     = contains(local.files, "compose.yaml")
      error_message = "There is no compose.yaml beside the folder of this configuration: run it from a clone of the whole repository, in terraform/."
    }
  }

  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-euc"]
    environment = {
      ROOT     = abspath(local.root)
      BUNDLE   = abspath(local.bundle_file)
      MANIFEST = local.manifest
    }
    # Only options that both GNU's and BSD's tar know.
    command = <<-EOT
      staging=$(mktemp -d)
      trap 'rm -rf "$staging"' EXIT
      mkdir -p "$(dirname "$BUNDLE")" "$staging/code"
      cd "$staging/code"
      printf '%s' "$MANIFEST" >files.sha256
      cut -c 67- files.sha256 >../names
      while read -r name; do
        mkdir -p "$(dirname "$name")"
        cp -p "$ROOT/$name" "$name"
      done <../names
      echo files.sha256 >>../names
      tar -czf "$BUNDLE" -T ../names
    EOT
  }
}

resource "aws_s3_bucket" "bundles" {
  #checkov:skip=CKV_AWS_18:Access logs need a second bucket; one instance reads one object once.
  #checkov:skip=CKV_AWS_144:Another region has no use for it: `terraform apply` makes any bundle again.
  #checkov:skip=CKV_AWS_145:SSE-S3 encrypts as well; a key of our own costs more than all the rest of the bucket.
  #checkov:skip=CKV2_AWS_61:Nothing piles up: Terraform removes a bundle, all versions of it, when another takes its place.
  #checkov:skip=CKV2_AWS_62:Nobody waits for an event.
  bucket_prefix = "${var.name}-bundles-"
  # So that `terraform destroy` needs nobody.
  force_destroy = true
}

resource "aws_s3_bucket_public_access_block" "bundles" {
  bucket                  = aws_s3_bucket.bundles.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "bundles" {
  bucket = aws_s3_bucket.bundles.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "bundles" {
  bucket = aws_s3_bucket.bundles.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_versioning" "bundles" {
  bucket = aws_s3_bucket.bundles.id

  versioning_configuration {
    status = "Enabled"
  }
}

data "aws_iam_policy_document" "bundles" {
  statement {
    sid    = "OnlyOverTls"
    effect = "Deny"
    # AWS reads the names of actions without regard to case. moto, which the tests put in its place, does not: it
    # knows no conditions either, and would refuse everybody everything under "s3:*".
    actions   = ["S3:*"]
    resources = [aws_s3_bucket.bundles.arn, "${aws_s3_bucket.bundles.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "bundles" {
  bucket = aws_s3_bucket.bundles.id
  policy = data.aws_iam_policy_document.bundles.json

  depends_on = [aws_s3_bucket_public_access_block.bundles]
}

resource "aws_s3_object" "bundle" {
  bucket       = aws_s3_bucket.bundles.id
  key          = "${local.bundle_prefix}${local.release}.tar.gz"
  source       = local.bundle_file
  content_type = "application/gzip"

  # S3 takes only ten tags for an object. The bucket has all of them.
  override_provider {
    default_tags {
      tags = {}
    }
  }

  lifecycle {
    # The host reads the old one until it is replaced.
    create_before_destroy = true
  }

  # The bucket is as it should be before anything is in it.
  depends_on = [
    terraform_data.bundle,
    aws_s3_bucket_ownership_controls.bundles,
    aws_s3_bucket_policy.bundles,
    aws_s3_bucket_server_side_encryption_configuration.bundles,
    aws_s3_bucket_versioning.bundles,
  ]
}
