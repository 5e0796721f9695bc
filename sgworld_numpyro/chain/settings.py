"""How a kernel runs."""

from dataclasses import dataclass, field, fields

import numpy as np

from sgworld_numpyro.chain.engine import Engine, rows_a_step
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import GradientEstimator
from sgworld_numpyro.integrators import Integrator, KineticState
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.schedules import Schedule
from sgworld_numpyro.subsampling import Plate, SubsamplingScheme


@dataclass(frozen=True)
class Settings:
    """How a kernel runs on a model and its data.

    Attributes:
        subsampling: which rows each minibatch takes.
        integrator: how force and noise move the position.
        gradient: the estimate of the full gradient.
        preconditioner: M.
        step_size: h, or a schedule; None if it is to be tuned.
        friction: γ of kinetic integrators; None of others, or if it is to be tuned.
        temperature: T.
        bias_tolerance: relative error of the posterior variance that tuning may allow.
        steps_per_sample: inner steps a sample.
        period: steps after which the law of the minibatches repeats.
        plates: the subsampled plates, with the rows that a step takes of each as their batch size.
        target: what is known of the model; not shown.
    """

    subsampling: SubsamplingScheme
    integrator: Integrator
    gradient: GradientEstimator
    preconditioner: Preconditioner
    step_size: float | Schedule | None
    friction: float | None
    temperature: float
    bias_tolerance: float
    steps_per_sample: int
    period: int
    plates: tuple[Plate, ...]
    target: Target = field(repr=False)

    @classmethod
    def of(
        cls, engine: Engine, step_size: float | Schedule | None, bias_tolerance: float, state: SGState | None = None
    ) -> "Settings":
        """From what advances a chain, what its kernel was given, and a state for what was tuned."""
        friction = getattr(engine.integrator, "friction", None)
        if state is not None:
            engine = engine.with_learnt(state.tuning)
            step_size = float(np.max(state.step_size)) if step_size is None else step_size
            if isinstance(state.integrator_state, KineticState):
                friction = float(np.min(state.integrator_state.friction))
        rows = (plate._replace(batch_size=rows_a_step(engine.subsampling, plate)) for plate in engine.target.plates)
        return cls(
            subsampling=engine.subsampling,
            integrator=engine.integrator,
            gradient=engine.gradient,
            preconditioner=engine.preconditioner,
            step_size=step_size,
            friction=friction,
            temperature=engine.temperature,
            bias_tolerance=bias_tolerance,
            steps_per_sample=engine.steps,
            period=engine.period,
            plates=tuple(rows),
            target=engine.target,
        )

    @property
    def plate(self) -> Plate:
        """The plate that takes most batches a pass."""
        return next(plate for plate in self.plates if plate.name == self.target.longest_plate.name)

    @property
    def num_rows(self) -> int:
        """N, of that plate."""
        return self.plate.size

    @property
    def batch_size(self) -> int:
        """B, rows of that plate a step."""
        return self.plate.batch_size

    @property
    def batches(self) -> float:
        """R = N/B."""
        return self.num_rows / self.batch_size

    def __repr__(self):
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"Settings({shown}, N={self.num_rows}, B={self.batch_size}, R={self.batches:g})"
