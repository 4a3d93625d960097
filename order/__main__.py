"""`python -m order`: one replica of the order service."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import threading
from pathlib import Path

from common.errors import BourseError, Unavailable
from common.locks import lock_file
from common.logs import logging_config
from common.runtime import Stopped, stop_event
from common.settings import load_settings
from order.log.log import open_log
from order.parts import Service
from order.settings import OrderSettings

logger = logging.getLogger("order")

_LOG_NAME = "orders.db"
_LOCK_NAME = "orders.lock"
# How soon a service that is over by itself is stopped; a signal does not wait for that.
_LOOK_S = 0.2


def main() -> int:
    signalled = stop_event()
    settings = load_settings(OrderSettings, "order")
    logging.config.dictConfig(logging_config(f"order-{settings.order_id}", settings))
    try:
        _lock(settings.data_dir)
        return 1 if _serve(settings, signalled).failed else 0
    except Stopped:
        logger.info("told to stop before it served")
        return 0
    except (BourseError, OSError, ValueError) as error:
        logger.critical("cannot start: %s", error)
        return 1
    finally:
        logging.shutdown()


def _lock(directory: Path) -> None:
    """Takes the volume until this process ends.

    Raises:
        Unavailable: another replica has it.
        OSError: it cannot be locked.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        # Without it, two processes write into one log ("log lock": test_process.py).
        lock_file(directory / _LOCK_NAME)
    except BlockingIOError:
        raise Unavailable(f"{directory}: another replica has it open") from None


def _serve(settings: OrderSettings, signalled: threading.Event) -> Service:
    """Serves until it is told to stop or the service is over by itself; returns the service.

    Raises:
        Stopped: told so before it served.
        BourseError, OSError, ValueError: it cannot start.
    """

    def check() -> None:
        if signalled.is_set():
            raise Stopped

    log, damage = open_log(settings.data_dir / _LOG_NAME, check)
    if damage is not None:
        logger.error("the log is damaged, rebuilding it: %s", damage)
    service = Service(settings, log, signalled.is_set)
    service.start()
    while not (signalled.wait(_LOOK_S) or service.over.is_set()):
        pass
    logger.info("stopping")
    if not service.stop():
        logger.critical("the last work does not end, leaving without it")
        logging.shutdown()
        os._exit(1)  # a normal exit would wait for the thread that hangs
    logger.info("stopped, last number %d", log.last_number)
    return service


if __name__ == "__main__":
    sys.exit(main())
