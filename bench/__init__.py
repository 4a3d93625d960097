"""The measuring tools: how fast, how it grows, and how long a failover takes.

Each starts a copy of the service in containers, makes load with wrk, and removes the copy again.
Needs Docker, wrk, and what `make venv` installs; the rest of the client needs none of it.
"""
