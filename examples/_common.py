"""What the examples share: command-line options, the file of numbers, the saved run."""

import argparse
import json
from pathlib import Path

from sgworld_numpyro import to_inference_data


def parse(description, argv, add_options=None):
    """The options that every example takes, and those that ``add_options(parser)`` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where files go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE as well")
    parser.add_argument("--quick", action="store_true", help="for tests: less data, fewer draws, large errors")
    parser.add_argument("--seed", type=int, default=0)
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def at_least(least):
    """The type of a whole number for ``add_argument`` that is not smaller than ``least``."""

    def number(text):
        if (found := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{found} is too few; want {least} or more")
        return found

    return number


def write_json(path, numbers):
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(numbers, indent=2) + "\n")


def save_run(path, mcmc, reference, extrapolation=None, law=None, **labels):
    """Save draws as netCDF; ``posterior.attrs`` holds the settings and, as JSON, the moments to compare with.

    Args:
        path: the file.
        mcmc: a finished run.
        reference: "source", and "mean" and "covariance" of the flat position: sites in alphabetical order.
        extrapolation: an ``Extrapolation`` of the same kernel, for ``how_biased_by_step_size``.
        law: mean and covariance of the chain's own exact law, where it is known.
        labels: coords and dims for ArviZ.
    """
    data = to_inference_data(mcmc, **labels)
    data["posterior"].attrs["reference"] = json.dumps(reference)
    if extrapolation is not None:
        data["posterior"].attrs["extrapolation"] = extrapolation.to_json()
    if law is not None:
        mean, covariance = law
        data["posterior"].attrs["law"] = json.dumps({"mean": mean.tolist(), "covariance": covariance.tolist()})
    data.to_netcdf(path)
