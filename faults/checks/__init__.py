"""The promises, one check each, judged from the history alone.

The order numbers are the order of the commits, so the checks need no search. Each is exact, and
takes time in proportion to the history (times its logarithm, where it sorts).
"""
