"""korelogger as a handler of the standard library's ``logging``."""

import logging

from . import _log


class KoreHandler(logging.Handler):
    """Passes records of ``logging`` on. CRITICAL becomes ERROR; other levels go to the next lower one there is."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logs the record; one that can not be formatted is left to ``handleError`` as every handler does."""
        try:
            message = self.format(record)
        except Exception:
            self.handleError(record)
            return
        _log.log(
            _level(record.levelno),
            message,
            (),
            {"logger": record.name, "code.filepath": record.pathname, "code.lineno": record.lineno},
        )


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARNING"
    if number >= logging.INFO:
        return "INFO"
    return "DEBUG"
