"""The benchmarks run, their files hold what they print, and promised ratios are kept."""

import json
from itertools import islice

import numpy as np
import pytest

from benchmarks.peer_packages import harness, oracle
from benchmarks.peer_packages.contenders import Contender, ask
from sgworld_numpyro import EulerMaruyama, WithReplacement
from sgworld_numpyro.linear_gaussian import gaussian_mean, stationary_moments


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    from benchmarks.accuracy_per_gradient import main

    directory = tmp_path_factory.mktemp("accuracy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        numbers = main(["--quick", "--out", str(directory), "--json", str(directory / "numbers.json")])
    assert json.loads((directory / "numbers.json").read_text()) == numbers
    assert (directory / "accuracy_per_gradient.png").read_bytes().startswith(b"\x89PNG")
    return numbers


def test_ratios_of_the_exact_laws(accuracy):
    ratios = accuracy["ratios"]
    for mixing in ("0.1", "0.3"):
        assert ratios["best_on_regression"][mixing]["ratio"] > 1000
    small = [row["ratio"] for row in ratios["sgworld_on_mean"].values() if row["fastest"] <= 0.3]
    assert small
    assert min(small) > 20


def test_control_variates_of_equal_hessians_leave_no_bias(accuracy):
    exact = accuracy["exact"]["mean"]["BAOAB + control variates"]
    assert max(bias["kl"]["value"] for bias in exact.values()) < 1e-15


def test_sampled_bias_of_sgld_is_the_largest(accuracy):
    (study,) = accuracy["sampled"]
    both = {name: bias["both"] for name, bias in study["bias"].items()}
    sgld = both.pop("SGLD")
    for other in both.values():
        assert sgld["value"] - 3 * sgld["error"] > other["value"] + 3 * other["error"]


def test_a_small_network_is_near_its_reference(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("optax")
    from benchmarks.networks import main

    method = "the same, learnt metric"
    numbers = main(["--quick", "--methods", method, "--json", str(tmp_path / "numbers.json")])
    assert json.loads((tmp_path / "numbers.json").read_text())["passes"] == 80
    rows = numbers["diabetes"]
    assert rows["HMC, one chain"]["error of mean, sds"]["mean"] < 0.1
    found, error = (rows[method]["error of mean, sds"][part] for part in ("mean", "error"))
    assert found < 0.7 - 5 * error  # a maximum of the posterior density is 0.73 away


def test_computed_step_of_sgld_has_the_allowed_bias():
    rows = np.random.default_rng(0).normal(size=(1000, 1))
    problem = gaussian_mean(rows, np.eye(1))
    rate = problem.hessian[0]
    chosen = oracle.best(rate, 1000**2 / 10 * rows.var(0), hamiltonian=False)
    law = stationary_moments(problem, WithReplacement(), EulerMaruyama(), chosen.step_size, batch_size=10).period_end
    bias = float(np.sqrt(law[1][0, 0] * rate[0])) - 1
    assert 0.95 * oracle.ALLOWED_BIAS < bias <= 1.0001 * oracle.ALLOWED_BIAS


def test_euler_steps_of_sghmc_exaggerate_the_variance_however_small():
    rate = np.array([4.0])
    for _, steps, _, variance in islice(oracle._hamiltonian(rate, np.zeros(1)), 9):  # of the smallest step
        np.testing.assert_allclose(variance * rate, steps / (steps - 1), rtol=1e-4)


def test_effective_number_of_an_autoregression():
    rng, decay, samples = np.random.default_rng(0), 0.8, 20_000
    values = np.empty((4, samples))
    values[:, 0] = rng.normal(size=4) / np.sqrt(1 - decay**2)
    for i in range(1, samples):
        values[:, i] = decay * values[:, i - 1] + rng.normal(size=4)
    # Sokal (1997), eq. 3.19: the time is known to √(2 (2 M + 1) / n), M its cut, here five times the time
    exact = 4 * samples * (1 - decay) / (1 + decay)
    error = np.sqrt(2 * (2 * 5 * 9 + 1) / (4 * samples))
    assert abs(harness.effective_number(values) / exact - 1) < 5 * error


def test_worker_of_this_package(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.ones((20, 2), np.float32))
    told = {"workload": "W1", "data": tmp_path / "rows.npz", "batch_size": 10, "samples": 2, "repeats": 1}
    answer = ask(Contender("ours", "sgworld", "SGWORLD"), "speed", step_size=1e-3, **told)
    assert answer["us"] > 0
    assert answer["peak_MiB"] > answer["added_MiB"] > 0
