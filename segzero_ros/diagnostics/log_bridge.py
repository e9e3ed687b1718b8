"""Lets the core's log be read where the node's is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

_CORE: Final = logging.getLogger("segzero_core")


class CoreLog(logging.Handler):
    """Hands on what the core logs, from which encoder was chosen to what was not used and why.

    Args:
        logger: The node's.
    """

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        # Unless somebody has chosen already; Python's own default hides what is no warning.
        if _CORE.level == logging.NOTSET:
            _CORE.setLevel(logging.INFO)
        _CORE.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        try:
            if record.levelno >= logging.WARNING:
                self._logger.warning(self.format(record))
            else:
                self._logger.info(self.format(record))
        except Exception:  # a log must not stop what it tells of
            self.handleError(record)

    def close(self) -> None:
        """Hand on nothing any more."""
        _CORE.removeHandler(self)
        super().close()
