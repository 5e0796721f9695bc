"""Preconditioners: apply is M, apply_root an L with L Lᵀ = M, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgworld_numpyro.preconditioners import Dense, Diagonal, Identity, Preconditioner

EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True)


def positive_definite(dim, seed):
    factor = np.random.default_rng(seed).standard_normal((dim, dim))
    return factor @ factor.T + np.eye(dim)


def diagonal(dim, seed):
    return np.exp(np.random.default_rng(seed).standard_normal(dim))


KINDS = {
    "identity": lambda dim, seed: (Identity(), np.eye(dim)),
    "diagonal": lambda dim, seed: (Diagonal(diagonal(dim, seed)), np.diag(diagonal(dim, seed))),
    "dense": lambda dim, seed: (Dense(positive_definite(dim, seed)), positive_definite(dim, seed)),
}


def as_matrix(operation, dim, dtype=np.float32):
    """The matrix of a linear map, from its values on the unit vectors."""
    return np.stack([np.asarray(operation(jnp.asarray(e))) for e in np.eye(dim, dtype=dtype)], axis=1)


@pytest.mark.parametrize("kind", KINDS)
@EXAMPLES
@given(dim=st.integers(1, 6), seed=st.integers(0, 1000))
def test_apply_is_m_and_apply_root_a_root_of_m(kind, dim, seed):
    preconditioner, matrix = KINDS[kind](dim, seed)
    rounding = 4 * dim * np.finfo(np.float32).eps * np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(as_matrix(preconditioner.apply, dim), matrix, rtol=0, atol=rounding)
    root = as_matrix(preconditioner.apply_root, dim).astype(float)
    np.testing.assert_allclose(root @ root.T, matrix, rtol=0, atol=rounding)
    np.testing.assert_array_equal(as_matrix(preconditioner.apply_root_transpose, dim), root.astype(np.float32).T)


@pytest.mark.parametrize("kind", KINDS)
@EXAMPLES
@given(dim=st.integers(1, 6), seed=st.integers(0, 1000))
def test_is_linear(kind, dim, seed):
    preconditioner, matrix = KINDS[kind](dim, seed)
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((2, dim)).astype(np.float32)
    size = np.linalg.norm(matrix, 2) * (np.linalg.norm(u) + 2 * np.linalg.norm(v))
    for operation in (preconditioner.apply, preconditioner.apply_root):
        together, apart = operation(u - 2 * v), operation(u) - 2 * operation(v)
        np.testing.assert_allclose(together, apart, rtol=0, atol=4 * dim * np.finfo(np.float32).eps * (1 + size))


@pytest.mark.parametrize("kind", KINDS)
def test_traced_and_vectorized(kind):
    """Under jit and vmap as in a vectorized chain, to rounding: a batched product sums in another order."""
    preconditioner, matrix = KINDS[kind](3, 0)
    vectors = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    rounding = 12 * np.finfo(np.float32).eps * np.linalg.norm(matrix, 2) * np.linalg.norm(vectors, axis=1).max()
    for operation in (preconditioner.apply, preconditioner.apply_root):
        alone = np.stack([operation(v) for v in vectors])
        np.testing.assert_allclose(jax.jit(jax.vmap(operation))(vectors), alone, rtol=0, atol=rounding)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keeps_the_positions_dtype(kind, dtype):
    preconditioner, matrix = KINDS[kind](3, 0)
    with jax.enable_x64(True):
        vector = jnp.ones(3, dtype)
        assert preconditioner.apply(vector).dtype == dtype
        assert preconditioner.apply_root(vector).dtype == dtype
        root = as_matrix(preconditioner.apply_root, 3, dtype)
    error = np.abs(root @ root.T - matrix).max()
    assert error <= 12 * np.finfo(dtype).eps * np.linalg.norm(matrix, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_satisfies_the_protocol(kind):
    assert isinstance(KINDS[kind](2, 0)[0], Preconditioner)


def test_a_users_own_satisfies_the_protocol():
    class Twice:
        def apply(self, vector):
            return 2 * vector

        def apply_root(self, vector):
            return jnp.sqrt(2.0) * vector

        apply_root_transpose = apply_root

    class NoRoot:
        def apply(self, vector):
            return vector

    assert isinstance(Twice(), Preconditioner)
    assert not isinstance(NoRoot(), Preconditioner)


# --- What they refuse ---


@pytest.mark.parametrize("value", [[1.0, 0.0], [1.0, -2.0], [np.nan, 1.0], [np.inf, 1.0], 3.0, [[1.0, 2.0]]])
def test_diagonal_refuses(value):
    with pytest.raises(ValueError, match=r"Diagonal wants a vector of finite positive numbers, got shape \("):
        Diagonal(value)


def test_diagonals_message_names_the_smallest_entry():
    with pytest.raises(ValueError, match=r"shape \(3,\), smallest entry -2\.0"):
        Diagonal([1.0, -2.0, 4.0])


@pytest.mark.parametrize(("value", "shape"), [(np.ones(3), r"\(3,\)"), (np.ones((2, 3)), r"\(2, 3\)")])
def test_dense_refuses_what_is_not_square(value, shape):
    with pytest.raises(ValueError, match=f"Dense wants a square matrix, got shape {shape}"):
        Dense(value)


def test_dense_refuses_what_is_not_symmetric():
    with pytest.raises(ValueError, match=r"Dense wants a symmetric matrix; pass \(matrix \+ matrix\.T\) / 2"):
        Dense([[1.0, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(("value", "smallest"), [(np.diag([1.0, -0.5]), "-0.5"), (np.zeros((2, 2)), "0")])
def test_dense_refuses_what_is_not_positive_definite(value, smallest):
    with pytest.raises(ValueError, match=f"positive definite matrix; the smallest eigenvalue is {smallest}"):
        Dense(value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_dense_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match="Dense wants"):
        Dense([[1.0, value], [value, 1.0]])


def test_integers_are_accepted():
    np.testing.assert_array_equal(Diagonal([1, 4]).apply_root(jnp.ones(2)), [1.0, 2.0])
    np.testing.assert_array_equal(Dense([[4, 0], [0, 9]]).apply_root(jnp.ones(2)), [2.0, 3.0])
