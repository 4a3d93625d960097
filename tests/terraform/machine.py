from pathlib import Path


def bridge_address():
    return None


def make_certificate(folder):
    pass
