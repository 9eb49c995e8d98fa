"""A worker process: reads calls from a socket, sends back what they return or raise.

Workers are started as a fresh Python that calls :func:`main`, and not with ``multiprocessing``,
whose workers would run the user's script again when it has no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class CallResult(NamedTuple):
    """The number of a call, and its value or its error with the text of the traceback."""

    number: int
    value: Any
    error: BaseException | None = None
    trace: str = ""


def serve(connection: Connection, *, threads: int = 1, waiting: int = 0) -> None:
    """Run calls until the other side closes the connection.

    Args:
        connection: delivers a number, a function and its argument at a time.
        threads: calls that run at the same time.
        waiting: calls that may be delivered before they can run.
    """
    # A descriptor of its own: a call that ends this process closes the other, which is no hang-up.
    watched = os.dup(connection.fileno())
    threading.Thread(target=_exit_with_parent, args=(watched,), daemon=True).start()
    sending = threading.Lock()

    def run_call(number: int, function: Any, argument: Any) -> None:
        try:
            result = CallResult(number, function(argument))
        except Exception as error:  # sent to the parent, which raises it
            if is_out_of_memory(error):
                error = MemoryError(str(error) or type(error).__name__)
            result = CallResult(number, None, _portable(error), traceback.format_exc())
        with sending:
            connection.send(result)

    def run_in_thread(number: int, function: Any, argument: Any) -> None:
        try:
            run_call(number, function, argument)
        except MemoryError:
            _die_out_of_memory()
        except BaseException as error:
            # What ends a process ends only its thread here, and the parent would wait for ever.
            traceback.print_exc()
            code = error.code if isinstance(error, SystemExit) else 1
            os._exit(code if isinstance(code, int) else 1)

    # One call at a time stays in the main thread, as a library may require it. Where others are
    # delivered meanwhile, that thread has to receive them, or both sides wait for each other.
    executor = ThreadPoolExecutor(threads) if threads > 1 or waiting else None
    while True:
        try:
            call = connection.recv()
            if executor:
                executor.submit(run_in_thread, *call)
            else:
                run_call(*call)
        except (EOFError, BrokenPipeError):
            return


def _portable(error: Exception) -> Exception:
    """Return the error, or one with the same message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory is short, whichever library raised it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )


def _die_out_of_memory() -> None:
    """End as the kernel ends a process when memory is short, which the parent understands."""
    os.kill(os.getpid(), signal.SIGKILL)


def _exit_with_parent(descriptor: int) -> None:
    """End this process as soon as the parent has ended, in the middle of whatever it does.

    All that it has started ends with it, such as the JavaScript runtime of a download.

    Nothing is lost that a kill would not lose as well: part files appear whole or not at all.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # only hang-ups, which cannot be left out
    poll.poll()
    _end_group()
    os._exit(1)


def _end_group() -> None:
    """Kill this process and all that it started, where it is the first of a group."""
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve the socket of the last arguments: its descriptor, threads, and calls that wait."""
    descriptor, threads, waiting = map(int, sys.argv[-3:])
    try:
        serve(Connection(descriptor), threads=threads, waiting=waiting)
    except MemoryError:
        _die_out_of_memory()
    except RuntimeError as error:  # Python has no class of its own for it
        if str(error) != "can't start new thread":
            raise
        os._exit(os.EX_OSERR)  # as the parent understands
    _end_group()
