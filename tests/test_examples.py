"""The examples run, keep their promises about files, and agree with the posteriors that they compare with."""

import json
import runpy
import sys
import warnings
from pathlib import Path

import arviz as az
import jax
import numpy as np
import pytest
from scipy.stats import logistic, norm

from examples._scores import agreement, entropy, scores, total_variation
from sgworld_numpyro import SGWORLD, datasets, predictor
from sgworld_numpyro.landscape import row_potential
from sgworld_numpyro.learning_coefficient import deep_linear_coefficient
from tests import runs

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SETTINGS = {"scheme", "integrator", "step_size", "batch_size", "num_rows", "steps_per_sample"}


def run_quickly(name, directory, *options):
    """The numbers that ``main`` returns, after a check that the JSON file holds the same."""
    pytest.importorskip("matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        patch.syspath_prepend(EXAMPLES)  # as Python does for a script
        for module in ("_common", "_mnist", "_mnist_figures", "_scores"):
            patch.delitem(sys.modules, module, raising=False)
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        numbers = main(["--quick", "--out", str(directory), "--json", str(directory / "numbers.json"), *options])
    np.testing.assert_equal(json.loads((directory / "numbers.json").read_text()), numbers)  # NaN among them
    return numbers


@pytest.fixture(scope="module")
def gaussian_mean(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gaussian_mean")
    return directory, run_quickly("gaussian_mean", directory)


@pytest.fixture(scope="module")
def logistic_regression(tmp_path_factory):
    pytest.importorskip("sklearn")
    directory = tmp_path_factory.mktemp("logistic_regression")
    return directory, run_quickly("logistic_regression", directory)


def check_saved_run(path, sites):
    """A saved run has its settings, and a reference of as many coordinates as the position."""
    posterior = az.from_netcdf(path).posterior
    assert posterior.attrs.keys() >= SETTINGS
    reference = json.loads(posterior.attrs["reference"])
    dim = sum(int(np.prod(posterior[site].shape[2:])) for site in sites)
    assert np.shape(reference["mean"]) == (dim,)
    covariance = np.array(reference["covariance"])
    assert covariance.shape == (dim, dim)
    assert np.linalg.eigvalsh(covariance).min() > 0
    return posterior, reference


def is_image(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_gaussian_mean_currents(gaussian_mean):
    _, numbers = gaussian_mean
    sgld, sgworld = (numbers["entropy_production"][name] for name in ("SGLD", "SGWORLD"))
    for found in (sgld, sgworld):
        assert abs(found["measured"] - found["exact"]) <= 5 * found["error"]
    assert sgworld["exact"] < 0.01 * sgld["exact"]
    assert sgworld["p_value"] > 0.01


def test_gaussian_mean_measures_what_is_exact(gaussian_mean):
    _, numbers = gaussian_mean
    estimates = [e for row in numbers["bias"].values() for bias in row.values() for e in bias.values()]
    assert len(estimates) == numbers["comparisons"] == 6
    assert all(estimate["error"] > 0 for estimate in estimates)
    assert abs(numbers["largest_z"]) == max(abs(estimate["z"]) for estimate in estimates)
    assert abs(numbers["largest_z"]) <= 5


def test_gaussian_mean_tells_the_methods_apart(gaussian_mean):
    _, numbers = gaussian_mean
    (row,) = numbers["bias"].values()
    sgld, sgworld = row["SGLD"]["kl"], row["SGWORLD"]["kl"]
    assert sgld["measured"] - sgworld["measured"] > 5 * np.hypot(sgld["error"], sgworld["error"])
    gain = numbers["step_gain_over_sgld"]
    assert gain["SGWORLD+LM"] > gain["SGWORLD"] > gain["SGLD"] == 1


def test_gaussian_mean_saves_two_runs_and_a_figure(gaussian_mean):
    directory, _ = gaussian_mean
    assert is_image(directory / "gaussian_mean.png")
    saved = [check_saved_run(directory / f"{name}.nc", ["mean"]) for name in ("gaussian_mean", "gaussian_mean_sgld")]
    (sgworld, reference), (sgld, reference_of_sgld) = saved
    assert reference == reference_of_sgld
    assert sgworld.attrs["step_size"] == sgld.attrs["step_size"]
    assert (sgworld.attrs["scheme"], sgld.attrs["scheme"]) == ("random_reshuffle", "with_replacement")


@pytest.mark.laws
def test_logistic_regression_agrees_with_nuts(logistic_regression):
    """Within the example's own tolerances, to five Monte Carlo errors."""
    _, numbers = logistic_regression
    run = numbers["runs"]["SGWORLD"]
    difference, ratio = np.array(run["mean_difference"]), np.array(run["sd_ratio"])
    assert len(difference) == len(ratio) == len(numbers["coordinates"]) == 31
    assert (abs(difference) <= 0.05 + 5 * np.array(run["mean_difference_error"])).all()
    assert (abs(ratio - 1) <= 0.04 + 5 * np.array(run["sd_ratio_error"])).all()
    # or the two bounds above would allow anything
    assert max(run["mean_difference_error"]) < 0.1
    assert max(run["sd_ratio_error"]) < 0.1


@pytest.mark.laws
def test_logistic_regression_takes_its_temperature(logistic_regression):
    """Within what tuning allows the variance, to five errors, and with an error that tells 1 from 1.1."""
    _, numbers = logistic_regression
    temperature, error = numbers["runs"]["SGWORLD"]["temperature"]
    assert abs(temperature - 1) <= 0.02 + 5 * error
    assert error < 0.02


@pytest.mark.laws
def test_logistic_regression_saves_a_tuned_run_and_a_figure(logistic_regression):
    directory, numbers = logistic_regression
    assert is_image(directory / "logistic_regression.png")
    posterior, reference = check_saved_run(directory / "logistic_regression.nc", ["intercept", "weights"])
    assert reference["mean"] == numbers["nuts"]["mean"]
    assert list(posterior["feature"].values) == numbers["coordinates"][1:]
    assert posterior.attrs["predicted_bias"] <= posterior.attrs["bias_tolerance"] == 0.02
    gradients = posterior["intercept"].size * posterior.attrs["steps_per_sample"]
    gradients *= 2 if posterior.attrs["gradient"] == "control_variate" else 1
    assert gradients == numbers["runs"]["SGWORLD"]["gradients"]
    statistics = az.from_netcdf(directory / "logistic_regression.nc").sample_stats
    for name in ("configurational_temperature", "kinetic_temperature"):
        assert np.isfinite(statistics[name].values).all()


@pytest.mark.laws
def test_nonlinear_regression_measures_what_is_predicted(tmp_path, capsys, monkeypatch):
    """Plain SGD against theory to five standard errors, the files, and what ``--data`` refuses."""
    numbers = run_quickly("nonlinear_regression", tmp_path)
    for run in (numbers["wr"], numbers["wor"]):
        assert np.abs(run["mean_z"]).max() <= 5
        # of a transition's noise the run sees millions, of the slowest direction's spread a few
        assert run["noise_difference"] <= 0.02
        assert run["covariance_difference"] <= 0.2
        assert run["covariance_of_measured_noise_difference"] <= 0.02
        entropy, predicted = run["entropy_production"], run["entropy_production_predicted"]
        assert abs(entropy - predicted) <= 5 * run["entropy_production_error"]
        assert (np.abs(np.array(run["integral"]) - 1) <= 5 * np.array(run["integral_error"])).all()
        assert abs(run["slope"] - 1) <= 5 * run["slope_error"] <= 1
    assert numbers["wr"]["circulation_p_value"] <= 0.01
    assert numbers["wor"]["mean_from_landscape_minimum"] < 2e-6 < 2e-5 < numbers["wor"]["mean_from_loss_minimum"]

    for name in ("fit", "laws", "fluctuation_theorem", "currents"):
        assert is_image(tmp_path / f"nonlinear_regression_{name}.png")
    steps = {"": 20, "_sgld": 20, "_sgd_wr": 1, "_sgd_wor": 20}
    for name, steps_per_sample in steps.items():
        posterior, _ = check_saved_run(tmp_path / f"nonlinear_regression{name}.nc", ["w"])
        assert posterior.attrs["steps_per_sample"] == steps_per_sample
        replaced = name in ("_sgld", "_sgd_wr")
        assert posterior.attrs["scheme"] == ("independent_batches" if replaced else "random_reshuffle")

    monkeypatch.syspath_prepend(EXAMPLES)
    main = runpy.run_path(str(EXAMPLES / "nonlinear_regression.py"))["main"]
    for x, y, message in (
        (None, "1", "x_train.txt"),
        ("1\ntwo", "1\n2", "line 2: 'two' is not a number"),
        ("1\n2", "1", "has 2 numbers and y_train.txt 1"),
        ("1\n" * 25, "1\n" * 25, "25 rows; want a multiple"),
    ):
        for axis, text in (("x", x), ("y", y)):
            if text is not None:
                (tmp_path / f"{axis}_train.txt").write_text(text)
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path), "--data", str(tmp_path)])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_mnist_equilibrium_measures_four_chains(tmp_path):
    numbers = run_quickly("mnist_equilibrium", tmp_path, "--data", "digits", "--epochs", "100")
    assert numbers["source"] == "digits"
    assert numbers["minimum"]["gradient"] < 1e-3
    assert numbers["minimum"]["accuracy"] > 0.8
    files = {"mnist_sgd_wr": 14, "mnist_sgd_wor": 71, "mnist_equilibrium_sgld": 71, "mnist_equilibrium_sgworld": 71}
    for (name, run), (file, steps) in zip(numbers["runs"].items(), files.items(), strict=True):
        saved = az.from_netcdf(tmp_path / f"{file}.nc").posterior
        assert saved.attrs["steps_per_sample"] == steps
        assert saved["component"].dims == ("chain", "draw", "pc")
        assert saved["component"].size == 5 * run["draws"], name
        assert all(np.diff(run["explained"]) <= 0)
        assert 0 < sum(run["explained"]) <= 1
        assert run["entropy_production_error"] > 0
        assert 0 < run["circulation_p_value"] <= 1
        # so few draws that nothing is far from equilibrium
        assert abs(run["entropy_production"]) < 5 * run["entropy_production_error"]
    for name in ("currents", "fluctuation_theorem"):
        assert is_image(tmp_path / f"mnist_{name}.png")


def test_scores_of_predictions_by_hand():
    """Three of four right: two at a confidence of 0.9, one and a miss at 0.6."""
    probability = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.6, 0.4]])
    found = scores(probability, np.array([0, 1, 0, 1]))
    assert found["accuracy"] == 0.75
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.9, 0.6, 0.4]).mean())
    assert found["ece"] == pytest.approx((abs(1 - 0.9) + abs(0.5 - 0.6)) / 2)
    assert found["brier"] == pytest.approx(np.mean([2 * 0.1**2, 2 * 0.1**2, 2 * 0.4**2, 2 * 0.6**2]))
    assert entropy(probability[:1]) == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    other = np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
    assert agreement(probability, other) == 0.75
    assert total_variation(probability, other) == pytest.approx((0.2 + 0.2) / 4)


@pytest.mark.parametrize("side", [8, 28, 7])
def test_a_convolution_as_a_matrix_product_is_the_convolution(monkeypatch, side):
    linen = pytest.importorskip("flax").linen
    monkeypatch.syspath_prepend(EXAMPLES)
    ours = runpy.run_path(str(EXAMPLES / "_mnist.py"))["Conv"](4)
    x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    weights = ours.init(jax.random.key(0), x)
    expected = linen.Conv(4, (3, 3), strides=(2, 2)).apply(weights, x)
    np.testing.assert_allclose(ours.apply(weights, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prior"), [("cnn", "normal"), ("mlp", "hierarchical")])
def test_other_networks_and_priors_are_models_too(monkeypatch, name, prior):
    """A few epochs, and predictions of all test digits."""
    pytest.importorskip("flax")
    monkeypatch.syspath_prepend(EXAMPLES)
    for module in ("_common", "_mnist", "_mnist_figures", "_scores"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    example = runpy.run_path(str(EXAMPLES / "_mnist.py"))
    digits, network = datasets.mnist("digits"), example["NETWORKS"][name]
    start = example["initial_weights"](network, np.float32(digits.train_images[:1]), jax.random.key(0))
    scales = example["prior_scales"](start, digits.train_images / 255)
    model = example["make_model"](network, scales, 20, digits.train_images.shape[1:], example["PRIORS"][prior])
    if prior == "hierarchical":
        start |= example["initial_scales"](scales)
    predict = predictor(model, digits.test_images, sites="probability")
    kernel = SGWORLD(model, 0.1 / len(digits.train_images), keep=predict)
    labels = digits.train_labels.astype(np.int32)
    mcmc = runs.run(kernel, digits.train_images, labels, num_samples=8, key=1, init_params=start)
    probability = mcmc.get_samples()["probability"][-1]
    assert scores(np.asarray(probability), digits.test_labels)["accuracy"] > 0.5
    assert {site: value.shape for site, value in mcmc.last_state.z.items()} == {k: v.shape for k, v in start.items()}
    if prior == "hierarchical":
        moved = [abs(mcmc.last_state.z[site] - log) for site, log in example["initial_scales"](scales).items()]
        assert 0.01 < min(moved) <= max(moved) < 3


def test_mnist_predicts_the_small_digits(tmp_path):
    numbers = run_quickly("mnist", tmp_path, "--data", "digits", "--epochs", "30")
    assert numbers["source"] == "digits"
    runs = numbers["runs"]
    assert list(runs) == ["MAP", "SGLD", "SGWORLD", "SGWORLD+BAOAB", "the same, T = 0.03"]
    for run in runs.values():
        assert run["together"]["accuracy"] > 0.95
        assert run["nll"]["mean"] < 0.3
        assert run["entropy_rotated"]["mean"] > 0 < run["entropy"]["mean"]
    baoab = runs["SGWORLD+BAOAB"]
    assert baoab["r_hat"][0] < 1.1
    # it is less sure of what is no digit
    assert baoab["entropy_rotated"]["mean"] > baoab["entropy"]["mean"] + 5 * baoab["entropy_rotated"]["error"]
    assert baoab["curve"]["epoch"] == list(range(11, 31))
    for name in ("curves", "calibration", "digits", "weights"):
        assert is_image(tmp_path / f"mnist_{name}.png")
    data = az.from_netcdf(tmp_path / "mnist.nc")
    posterior = data["posterior"]
    assert posterior["probability"].shape == (4, 20, 100, 10)
    np.testing.assert_allclose(posterior["probability"].sum("digit"), 1, rtol=1e-4)
    assert posterior["weight"].shape == (4, 20, 4)
    assert len(az.summary(data, var_names=["weight"])) == 4
    assert posterior.attrs["scheme"] == "random_reshuffle"
    assert posterior.attrs["integrator"] == "baoab"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so many weights a left-out row moves too many for loo to be good
        assert az.loo(data).n_data_points == 500


@pytest.mark.laws
def test_local_learning_coefficient_of_a_degenerate_network(tmp_path):
    """What SGWORLD finds is what Gibbs sampling finds."""
    numbers = run_quickly("local_learning_coefficient", tmp_path)
    (network,) = numbers["networks"].values()
    assert network["weights"] == 27
    assert network["aoyagi"] == 3
    (sgworld,) = network["samplers"].values()
    error = np.hypot(sgworld["error"], network["exact_error"])
    assert abs(sgworld["value"] - network["exact"]) <= 5 * error + 0.02 * network["exact"]
    assert error < 0.1 * network["exact"]
    assert is_image(tmp_path / "local_learning_coefficient.png")


def test_gibbs_sampling_of_tied_networks_finds_the_exact_coefficients(monkeypatch):
    """With next to no noise what is left of n and the tie is within the errors, where the multiplicity is 1."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import _linear_networks as example

    monkeypatch.setattr(example, "NOISE_SCALE", 1e-6)
    for widths, rank in (((3, 3), 1), ((3, 2, 3), 2), ((2, 2, 2), 0), ((3, 3, 3), 1), ((3, 3, 3, 3), 0)):
        exact = deep_linear_coefficient(widths, rank)
        assert exact.multiplicity == 1
        network = example.linear_network(widths, rank, 100, 10)
        found, error = example.by_gibbs(network, 1.0, np.log(100), sweeps=100, chains=100)
        assert abs(found - exact.value) <= 5 * error
        assert error < 0.03 * exact.value


def test_the_density_of_independent_components_by_hand(monkeypatch):
    """Of two logistic variables turned and scaled; the model stands in the example of nonlinear entropy."""
    monkeypatch.syspath_prepend(EXAMPLES)
    example = runpy.run_path(str(EXAMPLES / "nonlinear_entropy.py"))
    rows = example["sources"](np.random.default_rng(0))
    w = np.array([[1.2, -0.3], [0.4, 0.9]])
    by_hand = logistic.logpdf(rows @ w.T).sum(1) + np.log(np.linalg.det(w))
    prior = norm(0, 10).logpdf(w).sum()
    potential = row_potential(lambda x: example["components"](x, 4), rows)
    found = potential.row_values(np.float32(w.ravel()), np.arange(5, dtype=np.int32))
    np.testing.assert_allclose(found, -prior - len(rows) * by_hand[:5], rtol=1e-5)
