"""Logging a condition when it begins, when it becomes another, and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Hashable


class OnChange:
    """One condition of one part. What is met again and again is logged once.

    Threads may share it: at worst one line comes twice.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._present: Hashable = None

    @property
    def is_present(self) -> bool:
        return self._present is not None

    def trouble(
        self,
        message: str,
        *arguments: object,
        cause: Hashable = "",
        level: int = logging.WARNING,
    ) -> None:
        """The condition is met.

        Args:
            cause: it is logged again when this is another one than the last time.
        """
        if self._present != (cause,):
            self._present = (cause,)
            self._logger.log(level, message, *arguments)

    def over(self, message: str, *arguments: object) -> None:
        """The condition is not met, or no longer; only the latter is logged."""
        if self._present is not None:
            self._present = None
            self._logger.info(message, *arguments)
