"""The benchmarks of accuracy and of networks run, their files hold what they print, and promised ratios are kept."""

import json

import pytest


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
