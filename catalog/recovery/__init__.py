"""Damage and loss: verification, backup, and a lost catalog made again from the logs."""
