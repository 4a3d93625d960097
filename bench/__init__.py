"""The measuring tools: how fast, how it grows, how long a failover takes, if it stays as it is.

Each starts a copy of the service in containers, makes load, and removes the copy again.
Needs Docker, wrk (`soak` does not), and what `make venv` installs; the rest of the client needs
none of it.
"""
