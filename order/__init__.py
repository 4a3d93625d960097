"""The order service: replicas that take trades to the catalog and keep the log of them.

Other packages import nothing of it, except the tool that writes long logs: `order.log.log`.
"""
