"""Who is compared, the environments that they run in, and how to ask one of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
WORKERS = Path(__file__).parent
ENVIRONMENTS = ROOT / ".venv-peers"
REQUIREMENTS = {
    "blackjax": ("blackjax==1.7.1", "jax==0.10.2"),
    # a jax of its time; newer ones were not tried
    "sgmcmcjax": ("sgmcmcjax==0.2.13", "jax==0.4.13", "jaxlib==0.4.13", "numpy<2", "scipy<1.13"),
    "posteriors": ("posteriors==0.1.3", "torch==2.13.0"),
    "jax_sgmc": ("jax-sgmc==0.1.5", "jax==0.4.30", "jaxlib==0.4.30", "numpy<2"),
}


class Contender(NamedTuple):
    """A method of a package; ``share`` is the part of the steps that it is given, where a step is slow.

    ``root`` says that its step is a time of Hamiltonian motion, and so as long as the root of a time of diffusion.
    """

    name: str
    package: str
    method: str
    share: float = 1
    most_chains: int = 64
    root: bool = False


OURS = "SGWORLD"
SPEED = (
    Contender(OURS, "sgworld", "SGWORLD"),
    Contender("SGWORLD, BatchReshuffle", "sgworld", "SGWORLD, BatchReshuffle"),
    Contender("BlackJAX SGLD", "blackjax", "SGLD"),
    Contender("BlackJAX SGHMC", "blackjax", "SGHMC", root=True),
    Contender("SGMCMCJax SGLD", "sgmcmcjax", "SGLD"),
    Contender("SGMCMCJax SGHMC", "sgmcmcjax", "SGHMC"),
    Contender("posteriors SGLD", "posteriors", "SGLD", share=0.02, most_chains=1),
    Contender("jax-sgmc SGLD", "jax_sgmc", "SGLD", share=0.1, most_chains=1),
)
TUNED = "SGWORLD(model)"
ERROR = (
    Contender(TUNED, "sgworld", "SGWORLD(model)"),
    Contender("NumPyro NUTS", "sgworld", "NUTS"),
    Contender("NumPyro HMCECS", "sgworld", "HMCECS"),
    Contender("BlackJAX SGLD", "blackjax", "SGLD"),
    Contender("BlackJAX SGLD, control variates", "blackjax", "SGLD-CV"),
    Contender("BlackJAX SGHMC", "blackjax", "SGHMC"),
    Contender("BlackJAX SGHMC, control variates", "blackjax", "SGHMC-CV"),
)
# contender -> the numbers of its documentation
DOCUMENTED = {
    Contender(TUNED, "sgworld", "SGWORLD(model)"): {"chains": 4, "samples": 2500},
    Contender("SGMCMCJax SGLD, README", "sgmcmcjax", "SGLD"): {"samples": 10_000, "step_size": 1e-5},
    Contender("BlackJAX SGLD, docstring", "blackjax", "SGLD"): {"samples": 10_000, "step_size": 1e-3},
    Contender("BlackJAX SGHMC, docstring", "blackjax", "SGHMC"): {
        "samples": 10_000,
        "thinning": 10,
        "step_size": 1e-3,
    },
    Contender("jax-sgmc SGLD, defaults", "jax_sgmc", "SGLD"): {"samples": 1_000, "step_size": 0.05},
}


def interpreter(package):
    """The Python of the package's environment; ours is the one that runs this."""
    return Path(sys.executable) if package == "sgworld" else ENVIRONMENTS / package / "bin" / "python"


def build(packages):
    """Environments that are not there yet; those that cannot be built are named, with pip's last word."""
    for package in packages:
        if interpreter(package).with_name("built").exists():
            continue
        print(f"building {ENVIRONMENTS.name}/{package}: {', '.join(REQUIREMENTS[package])}", flush=True)
        place = ENVIRONMENTS / package
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(interpreter(package)), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        done = subprocess.run([*pip, *REQUIREMENTS[package]], capture_output=True, text=True)
        if done.returncode:
            print(f"  not installed: {done.stderr.strip().splitlines()[-1]}")
            shutil.rmtree(place)
        else:
            interpreter(package).with_name("built").touch()


def there(contenders, packages):
    """Those of these packages whose environment is there."""
    return [one for one in contenders if one.package in packages and interpreter(one.package).exists()]


def ask(contender, measure, **options):
    """What the contender's worker answers; None where it failed, after its last word is printed."""
    command = [str(interpreter(contender.package)), str(WORKERS / f"with_{contender.package}.py"), measure]
    command += ["--method", contender.method]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    if shutil.which("taskset"):
        command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
    )
    if done.returncode:
        print(f"  {contender.name} failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])
