"""The service of several catalogs on a database of three nodes, as compose.ha.yaml has it.

`stores` measures it beside the one on SQLite, `takeover` how long trades wait when one of its
parts dies.
"""
