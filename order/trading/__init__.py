"""The way of a batch through a leader: queue, commit in the catalog, publishing.

The service puts trades into `TradeQueue` and gets a `TradeAnswer` for each. `CatalogClient` is the
catalog for all rooms; `Publisher` takes every new row.
"""
