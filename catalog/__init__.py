"""The commit point: stocks, the trade journal, the leadership fence and the cache leases."""
