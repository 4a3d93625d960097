"""The client of Bourse: a walk through the API, and sessions that check what they are told.

Needs nothing but the standard library; tqdm, when it is there, draws the progress bar.
"""
