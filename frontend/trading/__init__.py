"""A trade: decided by the leader, made safe for every cache, then answered."""
