"""What the examples share: command-line options, the file of numbers, the saved run."""

import argparse
import json
from pathlib import Path

import arviz as az


def parse(description, argv, add_options=None):
    """The options that every example takes, and those that ``add_options(parser)`` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where files go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE as well")
    parser.add_argument("--quick", action="store_true", help="a few seconds, with large Monte Carlo errors")
    parser.add_argument("--seed", type=int, default=0)
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def write_json(path, numbers):
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(numbers, indent=2) + "\n")


def save_run(path, mcmc, settings, reference, landscape=None, **labels):
    """Save draws as netCDF; ``posterior.attrs`` holds the settings and, as JSON, the moments to compare with.

    Args:
        path: the file.
        mcmc: a finished run.
        settings: scheme, integrator, step_size, batch_size, num_rows and steps_per_sample.
        reference: "source", and "mean" and "covariance" of the flat position: sites in alphabetical order.
        landscape: "loss_minimum", and "landscape_minimum" and "covariance" of the effective landscape, alike.
        labels: coords and dims for ArviZ.
    """
    # ArviZ 0.23 computes the log-likelihood of every row at every draw unless told not to.
    data = az.from_numpyro(mcmc, log_likelihood=False, **labels)
    data.posterior.attrs.update(settings, num_warmup=mcmc.num_warmup, reference=json.dumps(reference))
    if landscape is not None:
        data.posterior.attrs["landscape"] = json.dumps(landscape)
    data.to_netcdf(path)
