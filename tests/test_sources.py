"""Data that are read by row number: the draws of the same data in memory, to the bit, and what is said of errors."""

import threading

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import polars as pl
import pytest
import xarray as xr

from sgworld_numpyro import (
    SGLD,
    SGWORLD,
    BatchReshuffle,
    FullBatch,
    ModelError,
    RandomReshuffle,
    RowSource,
    SourceError,
    WithReplacement,
    long_run,
    open_row_store,
    to_inference_data,
    write_log_likelihood,
    write_predictions,
    write_row_store,
)
from sgworld_numpyro.chain import engine
from sgworld_numpyro.sources import columns_of, read_rows, row_source, row_store
from sgworld_numpyro.sources.reading import BlockReader
from tests.runs import make, run

ROWS, BATCH = 60, 8
X = np.random.default_rng(0).normal(size=(ROWS, 3))  # doubles, which JAX cuts
Y = (X @ [1.0, -2.0, 0.5] > 0).astype(np.int64)


def model(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=BATCH):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Bernoulli(logits=xb @ w), obs=yb)


def of_dict(data):
    return model(data["x"], data["y"])


class Rows:
    """A data set of one's own."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def __len__(self):
        return ROWS

    def __getitem__(self, rows):
        return {name: array[rows] for name, array in self.arrays.items()}


class Lists(Rows):
    """One that gives a list of rows, as those of array_record do."""

    def __getitem__(self, row):
        if not isinstance(row, int):
            raise TypeError("one row at a time")
        return {name: array[row] for name, array in self.arrays.items()}

    def __getitems__(self, rows):
        return [self[row] for row in rows]


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """X and Y as mapped files that are taken for large."""
    monkeypatch.setattr(row_source, "MAPPED_BYTES", 1)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")


def draws(*args, of=model, kernel=SGWORLD, scheme=None, **options):
    return np.asarray(run(kernel(of, 1e-3, subsampling=scheme), *args, **options).get_samples()["w"])


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        (RandomReshuffle(), {"num_chains": 2, "chain_method": "sequential", "progress_bar": True}),
        (BatchReshuffle(), {"num_chains": 3, "num_warmup": 1, "thinning": 2, "num_samples": 4}),
        (WithReplacement(), {}),
    ],
    ids=["sequential", "vectorized", "one chain"],
)
def test_draws_are_those_of_data_in_memory(mapped, scheme, options):
    np.testing.assert_array_equal(draws(*mapped, scheme=scheme, **options), draws(X, Y, scheme=scheme, **options))


def test_draws_do_not_depend_on_blocks(mapped, monkeypatch):
    """A sample is three blocks and a rest, of which the first of the next sample is announced."""
    want = draws(X, Y, num_samples=3)
    monkeypatch.setattr(engine, "READ_AHEAD_BYTES", 4 * BATCH * (3 * 4 + 4))
    np.testing.assert_array_equal(draws(*mapped, num_samples=3), want)


def test_sources_of_all_kinds(tmp_path):
    numbers = jnp.array([5, 3, 5, ROWS - 1])
    with h5py.File(tmp_path / "rows.h5", "w") as file:  # which wants ascending numbers without repetition
        kinds = [RowSource(file.create_dataset("x", data=X)), RowSource(X), RowSource(np.asfortranarray(X))]
        for source in kinds:
            assert source.as_given().shape == (ROWS, 3)
            np.testing.assert_array_equal(source.as_given()[numbers], X[numbers].astype(np.float32))
    for source in Rows(x=X, y=Y), Lists(x=X, y=Y), Rows(x=X.tolist() and X, y=Y):
        columns = columns_of(source)
        assert columns == columns_of(source)  # the same objects at every call
        x, y = read_rows([columns["x"], columns["y"]], numbers)
        np.testing.assert_array_equal(x, X[numbers].astype(np.float32))
        np.testing.assert_array_equal(y, Y[numbers])
        assert y.dtype == np.int32


def test_what_is_no_source_stays_as_it_is():
    for other in ("text", range(3), {"a": 1}, X, jnp.asarray(X), Rows(x=X).__getitem__, np.ones(3)):
        assert columns_of(other) is other


def test_a_block_that_was_announced_is_read_by_a_thread():
    seen = []

    class Watched(Rows):
        def __getitem__(self, rows):
            seen.append((threading.current_thread().name, len(rows)))
            return super().__getitem__(rows)

    reader = BlockReader([columns_of(source := Watched(x=X))["x"]])
    first, second = np.arange(6).reshape(2, 3), np.arange(6, 12).reshape(2, 3)
    (here,) = reader([first[:, :1], first[:, 1:]], [second])
    (there,) = reader([second], [])
    assert here.shape == (2, 3, 3)
    np.testing.assert_array_equal(there, X[second].astype(np.float32))
    assert [name for name, _ in seen[1:]] == [threading.current_thread().name, "read rows ahead"]
    assert len(source) == ROWS


@pytest.mark.parametrize(
    "use", [jnp.mean, np.mean, lambda x: x.mean(), lambda x: x * jnp.ones(3), lambda x: jnp.ones(ROWS) @ x, list]
)
def test_a_model_that_uses_a_source_whole_is_refused(use):
    def uses(x, y):
        use(x)
        return model(x, y)

    with pytest.raises(ModelError, match=r"x is rows of numpy\.ndarray.*\(60, 3\)|numpyro\.subsample.*x is rows of"):
        run(SGWORLD(uses, 1e-3), RowSource(X), Y)


def test_observations_are_taken_by_subsample():
    def whole(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        with numpyro.plate("rows", ROWS, subsample_size=BATCH):
            numpyro.sample("obs", dist.Normal(numpyro.subsample(x, event_dim=1) @ w), obs=y)

    with pytest.raises(ModelError, match=r"obs=numpyro\.subsample\(y, event_dim=0\)"):
        run(SGWORLD(whole, 1e-3), X, RowSource(Y))


def test_a_source_of_another_length_than_the_plate_is_refused():
    with pytest.raises(ModelError, match=r"has 60 rows, and rows of .* are 59"):
        run(SGWORLD(model, 1e-3), X, RowSource(Y[1:]))


def test_all_rows_at_once_are_refused(monkeypatch):
    monkeypatch.setattr("sgworld_numpyro.sources.reading.TAKEN_BYTES", 300)
    with pytest.raises((ModelError, SourceError), match="FullBatch"):
        run(SGWORLD(model, 1e-3, subsampling=FullBatch()), RowSource(X), Y)


class Failing(Rows):
    """Reads well so many times."""

    def __init__(self, times, error, **arrays):
        super().__init__(**arrays)
        self.times, self.error = times, error

    def __getitem__(self, rows):
        self.times -= 1
        if self.times < 0:
            if isinstance(self.error, Exception):
                raise self.error
            return self.error(super().__getitem__(rows))
        return super().__getitem__(rows)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("the disk is gone"), "failed to give rows .*OSError: the disk is gone"),
        (lambda found: found | {"x": found["x"][:, :2]}, "All rows must be of one shape and dtype"),
        (lambda found: found | {"x": found["x"].astype(np.float32)}, "All rows must be of one shape and dtype"),
    ],
)
def test_what_goes_wrong_while_it_reads_is_told(error, told):
    source = Failing(10**9, error, x=X, y=Y)
    kernel = SGLD(of_dict, 1e-3)
    mcmc = make(kernel, num_samples=50, progress_bar=True)
    mcmc.run(jax.random.key(0), source)
    source.times = 7  # in the thread or before it, whichever reads then
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=f"(?s){told}"):
        mcmc.run(jax.random.key(1), source)
    assert threading.active_count() < 20


def test_what_is_not_finite_is_found_before_the_first_sample():
    x = X.copy()
    x[41, 2] = np.nan
    with pytest.raises(ValueError, match=r"data\['x'\]\[41, 2\] is nan"):
        run(SGWORLD(of_dict, 1e-3), Rows(x=x, y=Y))


def test_whole_numbers_that_do_not_fit_are_told():
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="cut to 32 bits"):
        jax.block_until_ready(read_rows([columns_of(Rows(x=Y + 2**40))["x"]], jnp.arange(3)))


def test_a_source_that_cannot_be_one_says_why():
    with pytest.raises(SourceError, match="no rows"):
        RowSource(np.zeros((0, 3)))
    with pytest.raises(SourceError, match="not numeric"):
        RowSource(np.array(["a", "b"]))
    with pytest.raises(KeyError) as caught:  # of the model itself, which takes it for a dictionary
        run(SGWORLD(of_dict, 1e-3), Failing(0, KeyError("no such row"), x=X))
    assert "no source of rows: tests.Failing failed to give rows [0, 59]: KeyError" in caught.value.__notes__[-1]


def test_a_long_run_knows_its_file_again(mapped, tmp_path):
    kernel = SGWORLD(model, 1e-3)
    long_run(make(kernel, num_samples=2), jax.random.key(0), *mapped, path=tmp_path / "run")
    again = make(kernel, num_samples=4)
    long_run(again, jax.random.key(0), *mapped, path=tmp_path / "run")
    np.testing.assert_array_equal(again.get_samples()["w"], draws(X, Y, num_samples=4))
    changed = X.copy()
    changed[7] += 1
    np.save(tmp_path / "x.npy", changed)
    other = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="data x was"):
        long_run(make(kernel, num_samples=4), jax.random.key(0), other, mapped[1], path=tmp_path / "run")


@pytest.mark.parametrize("kind", ["csv", "parquet", "pieces"])
def test_a_row_store_has_the_rows_of_the_table_in_another_order(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(row_store, "PIECE_ROWS", 100)
    monkeypatch.setattr(row_store, "PILE_BYTES", 100_000)  # some piles
    table = pl.DataFrame({"n": np.arange(1000), "twice": 2.0 * np.arange(1000)})
    file = tmp_path / f"table.{kind}"
    if kind == "pieces":
        file = ({"n": n, "twice": 2.0 * n} for n in np.arange(1000).reshape(10, 100))
    elif kind == "csv":
        table.write_csv(file)
    else:
        table.write_parquet(file)
    store = write_row_store(tmp_path / "store", file, seed=1)
    n, twice = (np.asarray(store[name].as_given()[jnp.arange(1000)]) for name in ("n", "twice"))
    np.testing.assert_array_equal(np.sort(n), np.arange(1000))
    np.testing.assert_array_equal(twice, 2 * n)
    # of a random order the correlation with the number of the row has sd 1/√999
    assert abs(np.corrcoef(n, np.arange(1000))[0, 1]) < 5 / np.sqrt(999)
    assert abs(np.corrcoef(n[1:], n[:-1])[0, 1]) < 5 / np.sqrt(999)
    assert [file.name for file in sorted((tmp_path / "store").iterdir())] == ["n.npy", "twice.npy"]


def test_a_table_that_is_no_data_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"not numeric: name of dtype"):
        write_row_store(tmp_path / "store", [{"name": np.array(["a", "b"])}])
    assert not (tmp_path / "store").exists()
    with pytest.raises(SourceError, match="no columns"):
        open_row_store(tmp_path)


def predicting(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=BATCH):
        p = numpyro.deterministic("p", jax.nn.sigmoid(numpyro.subsample(x, event_dim=1) @ w))
        numpyro.deterministic("both", jnp.stack([p, 1 - p], -1))
        yb = None if y is None else numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Bernoulli(p), obs=yb)


def test_log_likelihood_and_predictions_go_to_a_file_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("sgworld_numpyro.results.row_blocks.BLOCK_ROWS", 7)
    mcmc = run(SGWORLD(predicting, 1e-3), RowSource(X), RowSource(Y), num_chains=2, num_samples=3)
    data = to_inference_data(mcmc, log_likelihood=True)
    path = tmp_path / "run.nc"
    to_inference_data(mcmc).to_netcdf(path)
    write_log_likelihood(mcmc, path)
    write_predictions(mcmc, path, jax.random.key(1), RowSource(X[:20]), sites=["p", "both", "obs"])
    p = jax.nn.sigmoid(np.einsum("cdk,nk->cdn", mcmc.get_samples(group_by_chain=True)["w"], X.astype(np.float32)))
    with xr.open_dataset(path, group="log_likelihood") as found:
        np.testing.assert_allclose(found["obs"], np.log(np.where(Y, p, 1 - p)), rtol=1e-4)
        np.testing.assert_array_equal(found["obs"], data["log_likelihood"]["obs"])
        assert found["obs"].dims == ("chain", "draw", "rows")
    with xr.open_dataset(path, group="predictions") as found:
        np.testing.assert_allclose(found["p"], p[..., :20], rtol=1e-5)
        np.testing.assert_allclose(found["both"][..., 1], 1 - p[..., :20], rtol=1e-4, atol=1e-6)
        assert found["both"].dims == ("chain", "draw", "rows", "both_dim_1")
        assert len(np.unique(np.asarray(found["obs"]).reshape(6, -1), axis=0)) > 3  # each draw has its own
    with pytest.raises(ValueError, match="has a group 'predictions' already"):
        write_predictions(mcmc, path, jax.random.key(1), X, sites="p")


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"num_chains": 2}], ids=["one chain", "vectorized"])
def test_tuned_draws_are_those_of_data_in_memory(mapped, given):
    """Control variates and full passes too: blocks of rows are summed in the same order."""
    kernels = SGWORLD(model), SGWORLD(model)
    mine, theirs = (run(k, *data, **given) for k, data in zip(kernels, (mapped, (X, Y)), strict=True))
    np.testing.assert_array_equal(mine.get_samples()["w"], theirs.get_samples()["w"])
    np.testing.assert_array_equal(mine.last_state.tuning.numbers, theirs.last_state.tuning.numbers)
