"""How long a stretch is: a time, or a number of samples."""

import math
import re
from typing import Any, NamedTuple

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Length(NamedTuple):
    """What ends a stretch, whichever comes first.

    Attributes:
        seconds: since the last one was written.
        samples: of each chain.
    """

    seconds: float
    samples: float

    @classmethod
    def of(cls, every: Any, thinning: int) -> "Length":
        """From what ``long_run`` was given.

        Raises:
            ValueError: if that is no length.
        """
        if isinstance(every, int) and not isinstance(every, bool) and every > 0:
            return cls(math.inf, -(-every // thinning) * thinning)
        found = re.fullmatch(rf"([\d.]+) ?({'|'.join(SECONDS)})", every) if isinstance(every, str) else None
        if found is None or not found[1].replace(".", "", 1).isdigit() or float(found[1]) == 0:
            raise ValueError(f'every={every!r}: want a time, as "10 min" or "30 s", or a number of samples, as 1000.')
        return cls(float(found[1]) * SECONDS[found[2]], math.inf)
