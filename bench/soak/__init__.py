"""Whether the service stays as it is over an hour: a steady load, and faults at its end.

`python -m bench soak` samples every container meanwhile, and judges whether memory, open files,
threads and write-ahead logs stay flat.
"""
