"""The client of Bourse: a walk through the API, and sessions that check every answer.

It needs only the standard library. If tqdm is installed, it draws a progress bar.
"""
