"""What the progress bar says of a run, without slowing it down."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain.divergence import first_divergence, warn_of_divergence
from sgworld_numpyro.chain.state import SGState

# The text is made anew this often, in seconds: reading a state waits for the device.
REFRESH_SECONDS = 0.05


class Progress(threading.local):
    """Step size, temperature and number of divergences, short beside a bar; and a warning at the first divergence.

    Of each thread its own: a kernel may run in several at once.

    Attributes:
        warned: whether a divergence of the run under way was told.
    """

    def __init__(self):
        self._made = 0.0
        self._text = ""
        self._tuning: tqdm | None = None
        self.begin(None, new_run=True)

    def begin(self, before: SGState | None, new_run: bool) -> None:
        """Look at the next chain, which goes on from ``before`` if it is not a new one."""
        self._before = before
        self._unseen: deque[SGState] = deque()  # states that were not computed yet when they were shown
        if new_run:
            self.warned = False

    def say(self, what: str | None) -> None:
        """What tuning does now, in a bar of its own if the run under way shows one; None at its end."""
        run = caller.run_under_way()
        if self._tuning is None and what is not None and run is not None and run.mcmc.progress_bar:
            self._tuning = tqdm(bar_format="tuning: {desc}, {elapsed}", leave=False)
        if self._tuning is None:
            return
        if what is None:
            self._tuning.close()
            self._tuning = None
        else:
            self._tuning.set_description_str(what)

    def text(self, state: SGState, largest_stable_step_size: Callable[[], Any]) -> str:
        """The text after this state, which may still be under computation."""
        diverged = self.look_at(state, largest_stable_step_size)
        now = time.monotonic()
        if diverged or now - self._made >= REFRESH_SECONDS:
            step_size, virials, divergences = jax.device_get(
                (state.step_size, state.thermometer.virials, state.divergences)
            )
            self._text = f"h {np.max(step_size):.1e}, T {np.mean(virials):.2f}"
            if np.any(divergences):
                self._text += f", {np.sum(divergences)} diverged"
            self._made = now
        return self._text

    def look_at(self, state: SGState, largest_stable_step_size: Callable[[], Any]) -> bool:
        """Warn of the first chain that is lost, in states that are computed by now, and say if there is one.

        It does not wait for others.
        """
        self._unseen.append(state)
        while self._unseen and _is_computed(self._unseen[0].divergences):
            seen = self._unseen.popleft()
            if self.warned or not np.any(np.asarray(seen.divergences)):
                continue
            first = first_divergence(seen, self._before)
            if first.found and first.lost:  # of a chain that may come back the end of the run will tell
                self.warned = True
                step_size = np.ravel(seen.step_size)[first.chain]
                warn_of_divergence(first, step_size, largest_stable_step_size())
                return True
        return False


def _is_computed(array: Any) -> bool:
    return array.is_ready()
