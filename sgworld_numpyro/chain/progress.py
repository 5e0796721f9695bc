"""What the progress bar says of a run, without slowing it down."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from sgworld_numpyro.chain.divergence import warn_of_divergence
from sgworld_numpyro.chain.state import SGState

# The text is made anew this often, in seconds: reading a state waits for the device.
REFRESH_SECONDS = 0.05


class Progress(threading.local):
    """Step size, mean potential energy and number of divergences; and a warning at the first divergence.

    Of each thread its own: a kernel may run in several at once.
    """

    def __init__(self):
        self._made = 0.0
        self._text = ""
        self._warned = False
        self._unseen: deque[SGState] = deque()  # states that were not computed yet when they were shown

    def say(self, what: str) -> None:
        """What tuning does now, on the progress bar that is about to start."""

    def text(self, state: SGState, largest_stable_step_size: Callable[[], Any]) -> str:
        """The text after this state, which may still be under computation."""
        self._unseen.append(state)
        diverged = self._look_for_divergence(largest_stable_step_size)
        now = time.monotonic()
        if diverged or now - self._made >= REFRESH_SECONDS:
            step_size, energy, divergences = jax.device_get(
                (state.step_size, state.potential_energy, state.divergences)
            )
            self._text = f"step size {step_size:.2e}, potential energy {energy:.4g}, divergences {divergences}"
            if state.tuning is not None:
                self._text += f", predicted bias {100 * float(state.tuning.report.predicted_bias):.2g} %"
            self._made = now
        return self._text

    def _look_for_divergence(self, largest_stable_step_size):
        """Warn of the first divergence among the states that are computed by now; do not wait for others."""
        while self._unseen and _is_computed(self._unseen[0].divergences):
            seen = self._unseen.popleft()
            if not seen.divergences:
                self._warned = False
            elif not self._warned:
                self._warned = True
                first = seen.i - seen.divergences
                warn_of_divergence(True, first, seen.step_size, largest_stable_step_size())
                return True
        return False


def _is_computed(array: Any) -> bool:
    return array.is_ready()
