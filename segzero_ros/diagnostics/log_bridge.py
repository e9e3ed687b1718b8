"""The node's log: the core's records in it, and tracebacks of defects."""

from __future__ import annotations

import logging
import traceback
from typing import Final

from rclpy.impl.rcutils_logger import RcutilsLogger

_CORE: Final = logging.getLogger("segzero_core")


class LogBridge(logging.Handler):
    """Writes what the core logs by Python's logging to the node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        # Unless somebody has chosen already: Python's default hides all but warnings.
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
        except Exception:  # a failing log must not stop the core
            self.handleError(record)

    def close(self) -> None:
        """Stop logging for the core."""
        _CORE.removeHandler(self)
        super().close()


def log_defect(logger: RcutilsLogger, where: str) -> None:
    """Log the exception that is being handled, with its traceback."""
    logger.error(f"{where}: {traceback.format_exc()}")
