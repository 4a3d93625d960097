"""The promises, one check each, judged from the history alone.

Order numbers give the order of the commits, so nothing has to be searched for: every check is
exact, and takes time in proportion to the history (and to its logarithm, where it sorts).
"""
