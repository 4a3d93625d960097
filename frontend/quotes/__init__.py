"""Quotes: the LRU cache in Redis, whose entries have leases, and how it is kept fresh."""
