"""Data in other forms than arrays: what is meant is taken, or the argument is named with the line that mends it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from jax.experimental import sparse
from numpyro.infer import log_likelihood

from sgworld_numpyro import SGWORLD, ModelError
from tests.models import ROWS, X, Y, linear, rows
from tests.runs import run


class Tensor:
    """What the tensors of other libraries have in common: a shape, and a conversion to NumPy."""

    def __init__(self, array):
        self._array = array
        self.shape = array.shape

    def __array__(self, dtype=None, copy=None):
        return self._array

    def __eq__(self, other):
        return Tensor(self._array == other)

    def __bool__(self):
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")

    __hash__ = object.__hash__


def draws(model, *data, **options):
    mcmc = run(SGWORLD(model, 1e-3), *data, num_samples=3, **options)
    return mcmc, mcmc.get_samples()["w"]


@pytest.fixture(scope="module")
def expected():
    return draws(linear, X, Y)[1]


FORMS = {
    "pandas": (pd.DataFrame(X), pd.Series(Y)),
    "xarray": (xr.DataArray(X), xr.DataArray(Y)),
    "tensors": (Tensor(X), Tensor(Y)),
    "a list": (X, [float(y) for y in Y]),
    "columns of several types": (pd.DataFrame({"a": pd.array(X[:, 0], "Float64"), "b": X[:, 1]}), Y),
    "read-only": (np.broadcast_to(X, X.shape), Y),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_in_other_forms_are_the_same_data(form, expected):
    mcmc, found = draws(linear, *FORMS[form])
    np.testing.assert_array_equal(found, expected)
    density = log_likelihood(mcmc.sampler.model, mcmc.get_samples(), *FORMS[form])["obs"]
    np.testing.assert_allclose(density, -0.5 * (Y - found @ X.T) ** 2 - 0.5 * np.log(2 * np.pi), rtol=1e-4, atol=1e-5)


def test_polars(expected):
    polars = pytest.importorskip("polars")
    _, found = draws(linear, polars.from_numpy(X), polars.Series(Y))
    np.testing.assert_array_equal(found, expected)


def frame_as_it_is(table):
    """pandas' own operations keep their meaning: a mean of each column."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    x = (table[["a", "b"]] - table[["a", "b"]].mean()) / table[["a", "b"]].std()
    with rows(len(table)):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(table["y"], event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def test_operations_of_pandas_keep_their_meaning():
    x = (X - X.mean(0)) / X.std(0, ddof=1)
    _, found = draws(frame_as_it_is, pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": Y}))
    np.testing.assert_allclose(found, draws(linear, x, Y)[1], rtol=1e-5)


WRONG_FORMS = {
    "objects": (
        (X.astype(object), Y),
        r"x is a numpy.ndarray of dtype object, .*: pass .astype\(float",
    ),
    "strings": ((X, Y.astype(str)), r"y is a numpy.ndarray of dtype <U\d+.*numpy.unique\(..., return_inverse=True"),
    "a column of strings": ((X, pd.Series(["a", "b"] * 12)), "y is a pandas.Series of dtype .*numpy.unique"),
    "scipy.sparse": ((scipy.sparse.csr_matrix(X), Y), r"x is a sparse array .*\.toarray\(\)"),
    "BCOO": ((sparse.BCOO.fromdense(jnp.asarray(X)), Y), r"x is a sparse array .*\.todense\(\)"),
    "complex": ((X, Y.astype(complex)), r"y is complex \(complex128\).*real"),
    "complex of jax": ((X, jnp.asarray(Y, complex)), r"y is complex \(complex64\).*real"),
    "a list of lists": ((X.tolist(), Y), r"x is a list of numbers: pass jnp.asarray"),
    "masked": ((X, np.ma.masked_greater(Y, 1)), "y is a masked array: pass its data, and hide .*numpyro.handlers.mask"),
    "big-endian": ((X.astype(">f4"), Y), "x is a numpy.ndarray of foreign byte order .*astype"),
    "dates": ((X, np.arange(ROWS).astype("datetime64[D]")), "y is a numpy.ndarray of dtype datetime64"),
}


@pytest.mark.parametrize("form", WRONG_FORMS)
def test_what_is_no_data_is_named(form):
    data, message = WRONG_FORMS[form]
    with pytest.raises(ModelError, match=message):
        SGWORLD(linear, 1e-3).init(jax.random.key(0), 0, None, data, {})


def by_index(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with rows() as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


def closes_over_numpy():
    by_index(X, Y)


def closes_over_a_frame():
    by_index(pd.DataFrame(X).values, jnp.asarray(Y))


@pytest.mark.parametrize("model", [closes_over_numpy, closes_over_a_frame])
def test_numpy_data_that_a_model_closes_over(model):
    with pytest.raises(ModelError, match=r"to NumPy, in test_foreign_data.py, line \d+ .*x\[chosen\].*jnp.asarray"):
        SGWORLD(model, 1e-3).init(jax.random.key(0), 0, None, (), {})


def test_a_table_that_is_indexed_by_rows():
    """A column is what pandas would look for."""
    with pytest.raises(ModelError, match=r"x is a pandas.DataFrame: pass numpy.asarray"):
        SGWORLD(by_index, 1e-3).init(jax.random.key(0), 0, None, (pd.DataFrame(X), jnp.asarray(Y)), {})


def looks(x, y, keep):
    """At values in every way that NumPy has, and takes rows of what it found."""
    classes = int(y.max() > 0) + len(np.unique(keep))
    assert not np.isnan(y).any()
    assert float(x.mean()) < 1
    assert classes == 3
    x, y = x[keep], y[keep]
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with rows(len(y)) as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("tuned", [False, True])
def test_models_that_look_at_values(as_array, tuned):
    keep = np.arange(ROWS) % 3 > 0
    data = tuple(map(as_array, (X, Y, keep)))
    if tuned:  # on other numbers of rows than a minibatch's
        state = SGWORLD(looks).init(jax.random.key(0), 0, None, data, {})
        assert np.isfinite(state.position).all()
        return
    _, found = draws(looks, *data)
    np.testing.assert_allclose(found, draws(linear, X[keep], Y[keep])[1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Out-of-support values")  # NumPyro's
def test_missing_values_of_a_series():
    y = pd.Series(Y)
    y[17] = np.nan  # behind the first minibatch
    with pytest.raises(ModelError, match=r"'obs' is NaN for 1 of its values.*numpyro.handlers.mask"):
        SGWORLD(linear, 1e-3).init(jax.random.key(0), 0, None, (X, y), {})


def with_a_typo(x, y, hidden):
    linear(x, undefined)  # noqa: F821


def with_a_wrong_shape(x, y, hidden):
    linear(X + jnp.ones(3), y)


@pytest.mark.parametrize(("model", "error"), [(with_a_typo, NameError), (with_a_wrong_shape, ValueError)])
def test_errors_that_arguments_have_nothing_to_do_with(model, error):
    """They stay what they are, with a note at most."""
    with pytest.raises(error, match=r"undefined|shape"):
        SGWORLD(model, 1e-3).init(jax.random.key(0), 0, None, (pd.DataFrame(X), Y, [50, 50]), {})


def test_numbers_that_single_precision_does_not_hold():
    kernel, key = SGWORLD(linear, 1e-3), jax.random.key(0)
    with pytest.raises(ModelError, match=r"y has values from 5000000000 to 5000000023, .* 32 bits.*y.astype\(float\)"):
        kernel.init(key, 0, None, (X, np.arange(ROWS) + 5_000_000_000), {})
    with pytest.warns(UserWarning, match=r"y is given in double precision .* differ by 23 at a size of 1.7e\+09"):
        kernel.init(key, 0, None, (X, 1.7e9 + np.arange(ROWS)), {})
