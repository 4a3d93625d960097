"""The log of a replica: storage, appending, replication, catching up.

The other rooms append through `Ledger` alone. `Replicator` and `catch_up` take rows to and from
the other replicas; `OrderLog` is for reading.
"""
