"""How far the runs in some directories are: draws, R-hat, effective draws, time left."""

import argparse
import sys

from sgworld_numpyro.runs.outlook import run_outlook
from sgworld_numpyro.store.files import DamagedRunError


def main(argv: list[str] | None = None) -> int:
    """What the command line asks; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sgworld_numpyro.runs", description=__doc__)
    parser.add_argument("path", nargs="+", help="a directory that long_run writes to")
    status = 0
    for path in parser.parse_args(argv).path:
        try:
            print(f"{path}\n{run_outlook(path)}")
        except DamagedRunError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main())
