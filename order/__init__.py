"""The order service: replicas that take trades to the catalog and keep the log of them."""
