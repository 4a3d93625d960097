locals {
  url = "http://${aws_eip.host.public_dns}:${local.port}"
}

output "url" {
  description = "Where Bourse answers, a few minutes after `terraform apply`."
  value       = local.url
}

output "public_dns" {
  description = "Name of the host; its address stays when the host is replaced."
  value       = aws_eip.host.public_dns
}

output "curl" {
  description = "A greeting, a quote, a trade, and that trade's order: to paste, line by line."
  value       = <<-EOT
    curl '${local.url}/hello?name=user'
    curl '${local.url}/stocks?stockname=stock1'
    curl '${local.url}/orders' -H 'Content-Type: application/json' -H 'Idempotency-Key: first' -d '{"name":"stock1","quantity":10,"type":"BUY"}'
    curl '${local.url}/orders?order-number=1'
  EOT
}

output "session_command" {
  description = "A shell on the host, through Session Manager."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.host.id}"
}

output "log_command" {
  description = "What the host printed while it booted: how far it is, and what failed."
  value       = "aws ec2 get-console-output --region ${var.region} --instance-id ${aws_instance.host.id} --latest --output text"
}

output "instance_id" {
  description = "The host."
  value       = aws_instance.host.id
}

output "data_volume_id" {
  description = "The volume with the catalog and the order logs: what a snapshot is made of."
  value       = aws_ebs_volume.data.id
}

output "release" {
  description = "Digest of the code that the host runs."
  value       = local.release
}
