"""The stretches of a run in its directory: written one after the other, and which of them are intact.

- ``run.json`` - what run it is, written once.
- ``stretch-00012.json`` - of the twelfth stretch: which samples, the names and checksums of its files, and how its
  state is made up. It is written last, and with it the stretch is there. Stretch 0 is the state before all samples.
- ``draws-00012.npz`` - its draws by field and site, of shape (chain, draw, ...).
- ``state-00012.npz`` - the arrays of the state after it; those before the last two are deleted.
"""

import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgworld_numpyro.store.files import (
    ASIDE,
    LOCK,
    DamagedRunError,
    Entry,
    check_entry,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
)
from sgworld_numpyro.store.trees import pack, unpack

FORMAT = 1
STATES = 2  # that are kept
ABOUT = "run.json"


class Stretch(NamedTuple):
    """A stretch, as its own file tells.

    Attributes:
        number: 1 for the first; 0 for the state before all samples.
        samples: of each chain that were taken by its end, the warm-up included.
        draws: likewise, that were kept.
        num_samples: that the run was to have when this was written, after the warm-up.
        rate: samples a second of each chain, as last seen; None if none was taken yet.
        written: when, in UTC.
        attributes: what the run says of itself by then.
        state: the file of the state after it.
        drawn: the file of its draws; None if there are none.
        packed: how the state is made up.
    """

    number: int
    samples: int
    draws: int
    num_samples: int
    rate: float | None
    written: str
    attributes: dict[str, Any]
    state: Entry
    drawn: Entry | None
    packed: dict[str, Any]


def read_about(path: Path) -> dict[str, Any]:
    """What run a directory holds.

    Raises:
        DamagedRunError: if it holds none, or one that this version cannot read.
    """
    if not (path / ABOUT).exists():
        raise DamagedRunError(f"{path} holds no run: there is no {ABOUT}.")
    about = read_json(path / ABOUT)
    if about.get("format") != FORMAT:
        raise DamagedRunError(f"{path} is of format {about.get('format')}, and this version reads {FORMAT}.")
    return about


def read_stretch(path: Path, number: int) -> Stretch:
    """One stretch.

    Raises:
        DamagedRunError: if its file is missing or damaged.
    """
    found = Stretch(**read_json(path / f"stretch-{number:05}.json"))
    return found._replace(state=Entry(*found.state), drawn=found.drawn and Entry(*found.drawn))


def write_stretch(
    path: Path,
    last: Stretch | None,
    samples: int,
    num_samples: int,
    state: Any,
    draws: Mapping[str, np.ndarray],
    attributes: dict[str, Any],
    rate: float | None = None,
) -> Stretch:
    """Write a stretch, and delete the state that is not needed any more.

    Args:
        path: the directory.
        last: the stretch before; None if this is the state before all samples.
        samples: taken by its end.
        num_samples: that the run is to have, after the warm-up.
        state: at its end.
        draws: by variable, (chain, draw, ...); none of a warm-up.
        attributes: what the run says of itself.
        rate: samples a second.

    Raises:
        OSError: if it cannot be written; the stretches before it are as they were.
    """
    number, before = (0, 0) if last is None else (last.number + 1, last.draws)
    try:
        drawn = write_arrays(path / f"draws-{number:05}.npz", draws) if draws else None
        packed, arrays = pack(state)
        stretch = Stretch(
            number=number,
            samples=samples,
            draws=before + (next(iter(draws.values())).shape[1] if draws else 0),
            num_samples=num_samples,
            rate=rate,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            attributes=attributes,
            state=write_arrays(path / f"state-{number:05}.npz", arrays),
            drawn=drawn,
            packed=packed,
        )
        write_json(path / f"stretch-{number:05}.json", stretch._asdict())
    except OSError as error:
        raise OSError(
            error.errno,
            f"stretch {number} could not be written to {path} ({error.strerror or error}). The {before} draws of each "
            "chain before it are safe there: make room, or mend what is wrong, and call again",
        ) from error
    (path / f"state-{number - STATES:05}.npz").unlink(missing_ok=True)
    return stretch


def is_new(path: Path) -> bool:
    """Whether a directory holds no run yet, or one that was killed before it was all there.

    Raises:
        DamagedRunError: if it holds other files, or the draws of a run that nobody knows.
    """
    ours = re.compile(rf"({LOCK}|{re.escape(ABOUT)}|(stretch|draws|state)-\d{{5,}}\.(json|npz))({re.escape(ASIDE)})?")
    foreign = sorted(entry.name for entry in path.iterdir() if not ours.fullmatch(entry.name))
    there = (path / ABOUT).exists()
    if foreign and not there:
        raise DamagedRunError(
            f"{path} holds other files, {', '.join(foreign[:3])}, and no run: give a directory of its own."
        )
    if not there and max(_numbers(path), default=0) > 0:
        raise DamagedRunError(f"{path / ABOUT} is missing, and without it nobody knows whose draws are there.")
    return not there


def newest_intact(path: Path) -> Stretch:
    """The newest stretch that a run can go on from, after a check of every file up to there.

    It warns where some after it were damaged, and takes these away.

    Raises:
        DamagedRunError: if there is no such stretch.
    """
    for partial in path.glob(f"*{ASIDE}"):  # of a process that was killed as it wrote
        partial.unlink()
    newest = max(_numbers(path), default=-1)
    found, damage = [], []
    try:
        for number in range(newest + 1):
            stretch = read_stretch(path, number)
            if stretch.drawn is not None:
                check_entry(path, stretch.drawn)
            found.append(stretch)
    except DamagedRunError as error:
        damage.append(str(error))
    while found:
        try:
            check_entry(path, found[-1].state)
            break
        except DamagedRunError as error:
            damage.append(str(error))
            found.pop()
    if not found:
        raise DamagedRunError(
            f"no intact state is left in {path} to go on from. {' '.join(damage[:1])} Put that file back, or give "
            "another path to begin anew."
        )
    if damage:
        warnings.warn(
            f"{damage[0]} The run goes on from the stretch before it, with {found[-1].draws} draws; what is lost is "
            "drawn again, the same.",
            stacklevel=2,
        )
        for number in range(newest, found[-1].number, -1):
            (path / f"stretch-{number:05}.json").unlink(missing_ok=True)
    return found[-1]


def state_after(path: Path, stretch: Stretch) -> Any:
    """The state that a run goes on from.

    Raises:
        DamagedRunError: if it cannot be read, or is of another version.
    """
    return unpack(stretch.packed, read_arrays(path / stretch.state.name))


def _numbers(path):
    return [int(entry.name[8:-5]) for entry in path.glob("stretch-*.json") if entry.name[8:-5].isdigit()]
