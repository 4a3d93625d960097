"""Quotes: the LRU cache in Redis under leases, and what keeps it right."""
