"""Learning coefficients of deep linear networks, which are known exactly: what an estimate should find."""

from collections.abc import Sequence
from typing import NamedTuple


class ExactCoefficient(NamedTuple):
    """How the free energy of a model grows with its n rows: F = n L + λ ln n − (m − 1) ln ln n.

    Attributes:
        value: λ, the learning coefficient.
        multiplicity: m.
    """

    value: float
    multiplicity: int


def deep_linear_coefficient(widths: Sequence[int], rank: int) -> ExactCoefficient:
    """λ and m of y = x W₁ W₂ … W_L + noise at the most degenerate weights whose product has a rank r.

    With Δ_s = width_s − r, and Σ the ℓ + 1 smallest of them, as many as have ℓ max Σ ≤ ΣΔ < ℓ min of the others,

        λ = r (width_0 + width_L − r) / 2 + a (ℓ − a) / 4ℓ − (ℓ − 1) S² / 4ℓ + ½ Σ_{i<j} Δ_i Δ_j,
        m = a (ℓ − a) + 1,    S = Σ Δ,    a = S − ℓ (⌈S/ℓ⌉ − 1).

    A regular model has half of its number of weights, and m = 1: one layer, for instance, width_0 × width_1 / 2.

    Args:
        widths: of the input, of each hidden layer and of the output.
        rank: r of the true map.

    Raises:
        ValueError: if there is no layer, or the rank is more than the narrowest width.

    Source: Aoyagi (2024, Neural Networks 172, 106132); two layers: Aoyagi and Watanabe (2005, Neural Networks 18).
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths={tuple(widths)}; want those of the input, the hidden layers and the output, from 1.")
    if not 0 <= rank <= min(widths):
        raise ValueError(f"rank={rank}; through widths {tuple(widths)} go maps of rank 0 to {min(widths)}.")
    excess = sorted(width - rank for width in widths)
    layers = next(k for k in range(1, len(excess)) if _is_active(excess, k))
    active = excess[: layers + 1]
    total = sum(active)
    rest = total - layers * (-(-total // layers) - 1)
    pairs = (total**2 - sum(width**2 for width in active)) / 2
    value = (
        rank * (widths[0] + widths[-1] - rank) / 2
        + rest * (layers - rest) / (4 * layers)
        - (layers - 1) * total**2 / (4 * layers)
        + pairs / 2
    )
    return ExactCoefficient(value, rest * (layers - rest) + 1)


def _is_active(excess, layers):
    """Whether the layers + 1 narrowest widths decide, as neither fewer nor more do."""
    total = sum(excess[: layers + 1])
    wider = excess[layers + 1 :]
    return layers * excess[layers] <= total and (not wider or total < layers * wider[0])
