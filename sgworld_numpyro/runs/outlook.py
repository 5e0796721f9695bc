"""How far a run on disk is, how well it has mixed by now, and how long it will take: while it goes on, or after."""

import math
from datetime import datetime, timedelta
from os import PathLike
from typing import NamedTuple

from sgworld_numpyro.chain.convergence import Mixing, mixing_of, some_coordinates
from sgworld_numpyro.store.stored_run import StoredRun

FEWEST = 4  # draws of a chain, of which R-hat can be taken


class Outlook(NamedTuple):
    """Of a run in its directory; ``print`` shows it in words.

    Attributes:
        draws: of each chain that are saved.
        wanted: draws of each chain that the run is to have.
        chains: how many.
        samples: of each chain that were taken, of the warm-up and between draws too.
        samples_wanted: likewise.
        divergences: draws of all chains that are marked so.
        mixing: R-hat and effective draws of the worst coordinates; None of fewer than four draws a chain.
        seconds_left: at the speed last seen; NaN if it is not known, 0 of a run that is complete.
        written: when the last stretch was.
    """

    draws: int
    wanted: int
    chains: int
    samples: int
    samples_wanted: int
    divergences: int
    mixing: Mixing | None
    seconds_left: float
    written: datetime

    def __str__(self) -> str:
        share = self.samples / self.samples_wanted
        lines = [
            f"{self.draws} of {self.wanted} draws of each of {self.chains} chains: {share:.0%} of the samples",
            f"written    {self.written:%Y-%m-%d %H:%M:%S} UTC",
        ]
        if self.samples < self.samples_wanted:
            known = math.isfinite(self.seconds_left)
            left = str(timedelta(seconds=math.ceil(self.seconds_left))) if known else "not known yet"
            lines.append(f"time left  {left}")
        if self.mixing is not None:
            lines.append(f"R-hat      {self.mixing.r_hat:.3f} of {self.mixing.apart or 'every site'}, at most")
            lines.append(
                f"effective  {self.mixing.effective:.0f} draws of {self.mixing.slowest or 'every site'}, at least"
            )
        if self.divergences:
            lines.append(f"divergent  {self.divergences} draws")
        return "\n".join(lines)


def run_outlook(path: str | PathLike) -> Outlook:
    """How far the run in a directory is; its process is not needed, nor disturbed.

    Args:
        path: the directory that ``long_run`` was given.

    Raises:
        DamagedRunError: if it holds no run, or a file is damaged.
    """
    stored = StoredRun(path)
    last, about = stored.stretches[-1], stored.about
    wanted = about["num_warmup"] + last.num_samples
    mixing = mixing_of(_floats(stored)) if stored.draws >= FEWEST else None
    left = wanted - last.samples
    return Outlook(
        draws=stored.draws,
        wanted=stored.wanted,
        chains=about["num_chains"],
        samples=last.samples,
        samples_wanted=wanted,
        divergences=int(stored.read("diverging").sum()) if "diverging" in stored.shapes else 0,
        mixing=mixing,
        seconds_left=left / last.rate if last.rate else (0.0 if left == 0 else math.nan),
        written=datetime.fromisoformat(last.written),
    )


def _floats(stored):
    """Draws by site, of very large sites some coordinates."""
    found = {}
    for site, name in stored.sites().items():
        shape, dtype = stored.shapes[name]
        if dtype.kind == "f":
            found[site] = stored.read(name, elements=some_coordinates(math.prod(shape)))
    return found
