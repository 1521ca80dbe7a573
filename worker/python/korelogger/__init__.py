"""Log lines that show at once, each under the run that wrote it.

    import korelogger

    korelogger.info("balance of %s is %d", account, balance, shop=17)

``debug``, ``info``, ``warning`` and ``error`` take a message, arguments for its ``%`` placeholders and any number of
named attributes. ``KoreHandler`` does the same for programs that use ``logging``. ``traceparent`` and ``tracestate`` are
the headers to send with calls of other services, so that these belong to the run's trace. Nothing here ever raises.
"""

from ._log import debug, error, info, traceparent, tracestate, warning

__all__ = ["KoreHandler", "debug", "error", "info", "traceparent", "tracestate", "warning"]
__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers know this name
if TYPE_CHECKING:
    from ._handler import KoreHandler


def __getattr__(name: str) -> object:
    # `logging` is only loaded for those who use it; a worker should start fast.
    if name == "KoreHandler":
        from ._handler import KoreHandler

        return KoreHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
