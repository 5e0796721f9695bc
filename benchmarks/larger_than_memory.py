"""How fast are rows that lie on disk, and how much memory do they take?

W3, the network 784-100-10 of ``benchmarks/speed.py``, on 2 GiB of images: once in memory, as a JAX array, and once as
the file that they are in, ``numpy.load(..., mmap_mode="r")``. Each in processes of its own, in alternation; of each
process the first run compiles and the others count. Resident memory is looked at every 10 ms, mapped pages included.
``python benchmarks/larger_than_memory.py --quick`` takes a minute, with a file of 200 MiB.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC

from benchmarks.output import add_output, write
from benchmarks.processes import fresh
from benchmarks.workloads import mlp_classifier
from sgworld_numpyro import SGWORLD

PIXELS, CLASSES, BATCH_SIZE = 784, 10, 100
STEPS, SAMPLES, RUNS = 500, 8, 3
PAGE = os.sysconf("SC_PAGE_SIZE")
RESIDENT = Path("/proc/self/statm")


def write_images(directory, rows):
    """Images and their labels, a block at a time."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(Path(directory) / "x.npy", "w+", np.float32, (rows, PIXELS))
    for start in range(0, rows, 10_000):
        some = images[start : start + 10_000]
        some[:] = rng.standard_normal(some.shape, np.float32)
    images.flush()
    np.save(Path(directory) / "y.npy", rng.integers(0, CLASSES, rows).astype(np.int32))


class Watch:
    """Resident memory of this process, MiB, least and most since it was looked at last."""

    def __init__(self):
        self.seen: list[float] = []
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        while True:
            self.seen.append(int(RESIDENT.read_text().split()[1]) * PAGE / 2**20)
            time.sleep(0.01)

    def since(self):
        """(least, most) since the last call."""
        seen, self.seen = self.seen, []
        return min(seen), max(seen)


def measure(directory, mapped):
    """Microseconds a step and MiB, in this process."""
    model = mlp_classifier(rows=1000).model
    watch = Watch()
    jnp.zeros(1).block_until_ready()
    time.sleep(0.1)
    _, imports = watch.since()
    x = np.load(Path(directory) / "x.npy", mmap_mode="r" if mapped else None)
    x = x if mapped else jax.block_until_ready(jnp.asarray(x))
    y = np.load(Path(directory) / "y.npy")
    kernel = SGWORLD(model, 1e-8, steps_per_sample=STEPS)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=SAMPLES, num_chains=1)
    mcmc.progress_bar = True  # NumPyro turns it off where the environment says CI
    # only a number a draw is kept, so that memory does not grow by the draws
    fields = ("~z.w1", "~z.w2", "potential_energy")

    def run(seed):
        with contextlib.redirect_stderr(io.StringIO()):
            mcmc.run(jax.random.key(seed), x, y, extra_fields=fields)
            return jax.block_until_ready(mcmc.get_extra_fields()["potential_energy"])

    run(0)
    _, first = watch.since()
    seconds, cpu = [], []
    for seed in range(RUNS):
        start, used = time.perf_counter(), time.process_time()
        run(seed)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    least, most = watch.since()
    return {
        "us": 1e6 * float(np.median(seconds)) / (STEPS * SAMPLES),
        "cpu": 1e6 * float(np.median(cpu)) / (STEPS * SAMPLES),
        "first": first - imports,
        "most": most - imports,
        "grows": most - least,
        "last": zlib.crc32(np.asarray(mcmc.last_state.position)),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output(parser, "larger_than_memory")
    parser.add_argument("--quick", action="store_true", help="200 MiB, once")
    parser.add_argument("--disk", help="directory for the file, which is deleted at the end")
    arguments = parser.parse_args(argv)
    size, rounds = (200, 1) if arguments.quick else (2048, 2)
    rows = size * 2**20 // (4 * PIXELS) // BATCH_SIZE * BATCH_SIZE
    found = {"memory": [], "disk": []}
    with tempfile.TemporaryDirectory(dir=arguments.disk) as directory:
        write_images(directory, rows)
        for _ in range(rounds):
            for name, mapped in (("memory", False), ("disk", True)):
                call = f"b.measure({directory!r}, {mapped})"
                found[name].append(fresh(f"import json, benchmarks.larger_than_memory as b; print(json.dumps({call}))"))
    same = len({run["last"] for runs in found.values() for run in runs}) == 1
    device = jax.devices()[0]
    numbers = {"jax": jax.__version__, "device": f"{device.platform} {device.device_kind}", "rows": rows, "same": same}
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}; {rows:,} rows, {size} MiB; same end: {same}")
    print(f"{'data':>8}{'us a step':>11}{'of CPUs':>9}{'first run, MiB':>16}{'most, MiB':>11}{'grows, MiB':>12}")
    for name, runs in found.items():
        middle = {key: float(np.median([run[key] for run in runs])) for key in ("us", "cpu", "first", "most", "grows")}
        numbers[name] = middle
        print(
            f"{name:>8}{middle['us']:11.0f}{middle['cpu']:9.0f}{middle['first']:16.0f}{middle['most']:11.0f}{middle['grows']:12.0f}"
        )
    numbers["rate"] = numbers["memory"]["us"] / numbers["disk"]["us"]
    print(f"{numbers['rate']:.2f} of the rate of data in memory")
    return write(numbers, arguments, "larger_than_memory")


if __name__ == "__main__":
    main()
