"""Ctrl-C as a wish to stop at the next good place, and not in the middle of a sample."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def wish_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since; pressed twice, it raises ``KeyboardInterrupt`` at once.

    Outside of the main thread, which alone is told of it, nothing changes.
    """
    pressed = False

    def on_signal(number, frame):
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
