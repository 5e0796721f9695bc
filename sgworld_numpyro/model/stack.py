"""Which calls are under way or were when an error was raised, looked up in Python's stack: what no argument tells."""

import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any


def locals_of(function: Callable) -> dict[str, Any] | None:
    """The local variables of the innermost call of a function that is under way; None if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return None if frame is None else frame.f_locals


def locals_where_raised(error: BaseException, function: Callable) -> dict[str, Any] | None:
    """Those of the outermost call of a function in which an error was raised; None if it was raised in none."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((frame.f_locals for frame in frames if frame.f_code is function.__code__), None)
