"""Logs a condition when it begins, when its cause changes, and when it ends."""

from __future__ import annotations

import logging
from collections.abc import Hashable


class OnChange:
    """One condition of one part. It is logged once, even if it is reported again and again.

    Threads may share it: at worst one line is logged twice.
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
        """Reports that the condition holds.

        Args:
            cause: when it differs from the last one, the condition is logged again.
        """
        if self._present != (cause,):
            self._present = (cause,)
            self._logger.log(level, message, *arguments)

    def over(self, message: str, *arguments: object) -> None:
        """Reports that the condition does not hold. Logged only if it held before."""
        if self._present is not None:
            self._present = None
            self._logger.info(message, *arguments)
