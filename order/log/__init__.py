"""The log of a replica: storage, appending, replication, catching up."""
