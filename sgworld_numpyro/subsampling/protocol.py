"""What a subsampling scheme is."""

from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from jax import Array
from jaxtyping import Int

Redraws = Literal["step", "epoch", "never"]
"""How often a scheme draws its order anew."""


class Plate(NamedTuple):
    """A subsampled plate of the model: ``plate(name, size, subsample_size=batch_size)``."""

    name: str
    size: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Batches that one pass over the rows takes, rounded up."""
        return -(-self.size // self.batch_size)


@runtime_checkable
class SubsamplingScheme(Protocol):
    """Which rows each minibatch takes: a pure function of (key, step).

    A scheme keeps no state, so a chain can be resumed at any step, steps can be drawn in blocks, and chains
    vectorized, with the same rows. Write your own as a frozen dataclass with these two methods.
    """

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        """Rows of the minibatches of steps ``start, ..., start + steps - 1``.

        Args:
            key: the chain's key for this plate, the same at every call.
            start: the first step; may be traced.
            steps: how many steps; static.
            plate: the plate's name, its number of rows and the size of a batch.

        Returns:
            Row numbers in ``0 .. plate.size - 1``.
        """
        ...

    def period(self, plate: Plate) -> int:
        """Steps after which the law of the scheme repeats (1 if batches are independent)."""
        ...


class NamedScheme(SubsamplingScheme, Protocol):
    """A scheme that says what it is, as the package's own do; one of your own need not.

    They hold for the class itself: one that inherits from it may draw its rows otherwise. The laws of minibatches are
    known of the package's own, as ``linear_gaussian.knows_scheme`` says; of any other tuning expects no more than of
    ``WithReplacement``, and the batches are independent where its period is one step.

    Attributes:
        name: what saved runs call it.
        redraws: "step" if each minibatch is independent of all others, as all the rows are too; "epoch" if a new order
            is drawn every period, of rows or of batches that stay the same; "never" if one order is kept for ever.
    """

    name: ClassVar[str]
    redraws: ClassVar[Redraws]


@runtime_checkable
class ContiguousScheme(SubsamplingScheme, Protocol):
    """A scheme over a fixed pool of batches, or of pieces of batches, whose rows can be stored side by side.

    With these two methods the kernel stores the data once in the order of ``layout``, and a minibatch is a
    contiguous slice of it, or a few of them, instead of a gather of scattered rows.
    """

    def layout(self, plate: Plate) -> Int[Array, "pool"]:
        """Rows of all batches or pieces of the pool, laid end to end."""
        ...

    def batch_numbers(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps *pieces"]:
        """Which batch of the pool each step takes, or which pieces of B/pieces rows; ``indices`` are their rows."""
        ...
