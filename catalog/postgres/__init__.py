"""The catalog's data in PostgreSQL: several processes over one database, one of them active.

The doors are `candidate.Candidate`, which makes a process active when it may be, and
`store.PostgresStore`, one term of being active. `session` says what they need of a connection.
`tenure` has the rules.
"""
