"""The commit point: stocks, the trade journal, the leadership fence and the cache leases.

The door is gRPC: `service.CatalogService`, started by `__main__`. `decisions` has the rules of a
trade, without any database. `store` has what the service needs of one; `sqlite` and `postgres` are
two. `recovery` has the commands for after a loss.
"""
