"""Who leads: the state machine of a replica, promotion, and whether log and catalog fit.

The other rooms import `Node` and the rules in `replica`, and report to `Promotion`, `LogIdentity`
and `Progress`.
"""
