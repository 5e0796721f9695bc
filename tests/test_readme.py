"""The Python blocks of README and the cells of docs run, one after the other, and print what they say."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

from sgworld_numpyro import SGWORLD
from tests.problems import anisotropic_mean
from tests.runs import run

README = Path(__file__).parents[1] / "README.md"


def cells_of(page):
    """The code of a page's cells, without their options."""
    cells = re.findall(r"^```{code-cell} python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(r"^:.*\n", "", cell, flags=re.MULTILINE) for cell in cells]


def run_page(name):
    """What the cells of a page in docs/ leave behind, by name."""
    page = README.with_name("docs") / name
    names: dict = {}
    for cell in cells_of(page):
        exec(compile(cell, str(page), "exec"), names)
    assert names
    return names


def test_readme_examples_run(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(block, str(README), "exec"), names)
    weights = np.asarray(names["mcmc"].get_samples()["w"])
    assert weights.shape == (4000, 3)
    assert np.all(np.abs(weights.mean(0) - [1.0, -2.0, 0.5]) < 0.2)
    assert "predicted relative error of the posterior variance" in capsys.readouterr().out


def test_the_page_on_results_runs(capsys):
    names = run_page("results.md")
    weights = names["idata"]["posterior"]["w"].values
    assert names["idata"]["log_likelihood"]["obs"].shape == (4, 200, 10_000)
    p = jax.nn.sigmoid(np.asarray(names["x"][:5]) @ weights.reshape(-1, 3).T)
    np.testing.assert_allclose(names["predicted"].mean, p.mean(1), atol=0.01)
    assert "first_weight" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["when_to_use.md", "how_it_works.md", "glossary.md"])
def test_short_pages_run(page, capsys):
    run_page(page)
    assert capsys.readouterr().out


def test_the_page_on_diagnostics_runs(capsys):
    """A step so large that SGLD is far too wide, which its own exact law says too, to the errors of the run."""
    names = run_page("diagnostics.md")
    said = capsys.readouterr().out
    assert "no; too wide" in said
    measured, exact = re.search(r"covariance error ([\d.]+) ±.*?([\d.]+) % by its exact law", said).groups()
    assert abs(float(measured) - float(exact)) < 0.1 * float(exact)
    assert set(names["ask"].QUESTIONS) <= set(said.split())


def test_the_page_on_migrating_runs(capsys):
    run_page("migrating.md")
    by_hand, kernel, theory, posterior = map(float, re.findall(r"\d\.\d{4}", capsys.readouterr().out))
    assert abs(by_hand - theory) < 0.03 * theory
    assert abs(kernel - theory) < 0.08 * theory
    assert theory > 1.2 * posterior


def test_the_page_on_extending_runs(capsys):
    names = run_page("extending.md")
    text = README.with_name("docs").joinpath("extending.md").read_text(encoding="utf-8")
    (promised,) = re.findall(r"  # (.* of order .*)$", text, re.MULTILINE)
    assert promised in capsys.readouterr().out.splitlines()
    problem = anisotropic_mean(20)
    kernel = SGWORLD(problem.model, 1e-5, subsampling=names["Systematic"](), integrator=names["HeavyBall"]())
    mcmc = run(kernel, *problem.data, num_warmup=10, num_samples=10)
    assert np.all(np.isfinite(np.asarray(mcmc.get_samples()["mean"])))


def test_the_page_on_data_larger_than_memory_runs():
    names = run_page("larger_than_memory.md")
    assert names["mapped"].as_given().shape == (10_000, 3)
    weights = np.asarray(names["mcmc"].get_samples()["w"]).mean(0)
    assert np.all(np.abs(weights - [1.0, -2.0, 0.5]) < 0.2)


@pytest.mark.slow
def test_the_page_on_long_runs_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_page("long_runs.md")
    assert "400 of 400 draws of each of 4 chains: 100% of the samples" in capsys.readouterr().out
    assert names["latest"].shape == (4, 100)
    assert float(abs(names["latest"].mean() - 1)) < 0.1  # five posterior sds of 2/100


def test_the_page_on_samplers_runs(capsys):
    names = run_page("choosing_a_sampler.md")
    *report, temperature = capsys.readouterr().out.strip().splitlines()
    assert any(line.startswith("friction") for line in report)
    measured = names["mcmc"].get_extra_fields(group_by_chain=True)["configurational_temperature"]
    measured = np.asarray(measured, float)  # held between readings, which are ten steps apart
    error = measured.std() / effective_sample_size(measured) ** 0.5
    assert error < 0.1
    assert abs(float(temperature) - 1) < 0.02 + 5 * error  # the tolerance is 2 %


@pytest.mark.slow
def test_the_page_on_networks_runs(capsys):
    pytest.importorskip("sklearn")
    names = run_page("networks.md")
    right, *temperatures, entropies = capsys.readouterr().out.strip().splitlines()
    assert float(right.split()[1]) > 0.95
    assert [line.split()[2] for line in temperatures] == ["b1:", "b2:", "w1:", "w2:"]
    for line in temperatures:
        _, found, error = line.replace("±", ":").split(":")
        assert abs(float(found) - 1) < 0.2 + 5 * float(error)
    of_digits, of_turned = (float(number) for number in re.findall(r"\d+\.\d+", entropies))
    assert of_turned > 1.5 * of_digits
    assert names["mcmc"].get_samples() == {}


def test_the_page_on_models_runs():
    names = run_page("models.md")
    mean = np.asarray(names["mcmc"].get_samples()["mean"])
    assert abs(mean.mean() - float(names["y"].mean())) < 5 / 50**0.5


def test_physics_examples_run(capsys):
    names = run_page("physics.md")
    measured, exact, theorems = names["measured"], names["exact"], names["theorems"]
    assert abs(measured.rate - exact.rate) < 5 * measured.rate_error
    assert measured.rate > 10 * measured.rate_error
    assert abs(theorems.slope[0] - 1) < 5 * theorems.slope_error[0]
    assert capsys.readouterr().out.count("±") == 4


def test_the_page_on_your_own_trajectories_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("your_own_trajectories.md")
    found, step = names["found"], names["step"]
    assert abs(found.rate / step - 3) < 5 * found.rate_error / step
    assert names["field"].p_value <= 0.015
    assert (tmp_path / "vortices.nc").exists()
    printed = capsys.readouterr().out
    assert "drift is not linear" in printed
    assert printed.count("±") == 3


@pytest.mark.parametrize("page", ["physics.md", "your_own_trajectories.md"])
def test_functions_named_in_docs_exist(page):
    import sgworld_numpyro
    from sgworld_numpyro import landscape, nonequilibrium

    text = (README.with_name("docs") / page).read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    for name in re.findall(r"`([a-z_]+)\(", tables):
        assert name == "labelled" or any(hasattr(r, name) for r in (nonequilibrium, landscape, sgworld_numpyro)), name


@pytest.mark.slow
def test_the_page_on_learning_coefficients_runs():
    """What it finds is the mean of nβL by quadrature, over the two weights."""
    names = run_page("learning_coefficient.md")
    found = names["found"]
    a = np.linspace(-8, 8, 4001)
    rise = (names["x"] ** 2).sum() / np.log(1000) / 2 * np.outer(a, a) ** 2
    weight = np.exp(-rise - np.add.outer(a**2, a**2) / 2)
    exact = (weight * rise).sum() / weight.sum()
    assert abs(found.value - exact) <= 5 * found.error + 0.02 * exact
    assert found.error < 0.2 * exact
    assert exact < 0.5
