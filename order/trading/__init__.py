"""A leader's way of a batch: queue, commit in the catalog, publishing."""
