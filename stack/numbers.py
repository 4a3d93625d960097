"""Numbers that people give on a command line, and percentiles. Needs the standard library only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of all values do not exceed (the nearest rank).

    Always a value that was measured, never one in between. Raises ValueError if there is none.
    """
    if not ascending or not 0 <= percent <= 100:
        raise ValueError(f"no {percent}th percentile of {len(ascending)} values")
    rank = -(-percent * len(ascending) // 100)  # rounded up, in integers
    return ascending[max(rank, 1) - 1]


def whole(least: int, most: int) -> Callable[[str], int]:
    """For `type=` of argparse: a whole number in decimal digits, both ends included."""

    def parse(text: str) -> int:
        sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
        if digits.isascii() and digits.isdecimal() and len(digits) <= 20:
            value = int(sign + digits)
            if least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """For `type=` of argparse: a number, both ends included."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan  # which lies in no range
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return parse
