"""SGLD, SGWORLD and SGD as kernels for NumPyro's ``MCMC``."""

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMC, MCMCKernel
from numpyro.infer.util import transform_fn
from numpyro.util import is_prng_key

from sgworld_numpyro import options
from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain.binding import Binding, Bindings, one_thread_at_a_time
from sgworld_numpyro.chain.consistency import DoesNotRunOnAllRows, check_minibatches
from sgworld_numpyro.chain.convergence import complaints, draws_of, warn_of_convergence
from sgworld_numpyro.chain.divergence import Divergence, first_divergence, is_lost, report
from sgworld_numpyro.chain.engine import Engine, steps_per_pass
from sgworld_numpyro.chain.kept import Keeping
from sgworld_numpyro.chain.placement import put
from sgworld_numpyro.chain.progress import Progress
from sgworld_numpyro.chain.settings import Settings
from sgworld_numpyro.chain.stability import largest_stable_step_size
from sgworld_numpyro.chain.start import check_initial_state, check_initial_values, check_key, initial_state, state_at
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.chain.thermometer import take_temperature
from sgworld_numpyro.gradients import GradientEstimator, Minibatch
from sgworld_numpyro.integrators import BAOAB, EulerMaruyama, Integrator
from sgworld_numpyro.model.arguments import Arguments, check_precision
from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.model.handlers import FullDataModel
from sgworld_numpyro.model.requirements import NotFromMinibatches
from sgworld_numpyro.model.target import Target, inspect_model
from sgworld_numpyro.preconditioners import Dense, Diagonal, Identity, Preconditioner
from sgworld_numpyro.schedules import Schedule
from sgworld_numpyro.subsampling import FullBatch, RandomReshuffle, SubsamplingScheme, WithReplacement
from sgworld_numpyro.tuning.batch_size import Better, better_batch_size
from sgworld_numpyro.tuning.certificate import complaints_of_tilt
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.staged import learn
from sgworld_numpyro.tuning.tuned_start import (
    check_tuning,
    law_of,
    may_be_staged,
    plan_of,
    start_at_pilot,
    start_near_the_mode,
    warn_of_tuning,
)


class StochasticGradientKernel(MCMCKernel):
    """Stochastic-gradient MCMC on the minibatches of a model's subsampled plates.

    One sample of ``MCMC`` is ``steps_per_sample`` steps of ``integrator`` on minibatches that ``subsampling``
    draws for every ``plate(..., subsample_size=B)`` of the model. The model is used as it is.

    Args:
        model: a NumPyro model with at least one subsampled plate.
        step_size: h of dx = -M ∇U h + √(2hT) M^½ ξ, U in nats, or the time step of a kinetic integrator; a float or
            a schedule, a function of the number of inner steps taken. By default it is tuned before the first
            sample; see ``tuning``.
        subsampling: which rows each minibatch takes; by default the class's ``default_subsampling``.
        integrator: how force and noise move the position; by default ``EulerMaruyama()`` if a step size is given, else
            the class's ``tuned_integrator``.
        gradient: the estimate of the full gradient; by default ``Minibatch()``, and ``ControlVariate()`` where tuning
            finds that an effective draw costs less with it, of kernels that may choose.
        preconditioner: M, in the flat unconstrained coordinates; ``Diagonal()`` and ``Dense()`` are learnt. By
            default ``Identity()`` if a step size is given; else ``Dense()``, or ``Diagonal()`` above 1000 dimensions.
        temperature: T; by default the class's ``default_temperature``: 1, which samples the posterior. 0 is gradient
            descent.
        bias_tolerance: relative error of the posterior variance that tuning may allow.
        steps_per_sample: inner steps a sample. By default, if a step size is given, one period of the subsampling
            scheme, one pass over the data if its batches are independent; else tuned, so that a draw is worth some 0.4
            effective ones.
        init_strategy: one of NumPyro's.
        keep: a function of the constrained values by site, to a dictionary of what ``MCMC`` keeps at every draw in
            their place: predictions, projections, chosen weights, or nothing, ``lambda sites: {}``, where averages are
            all that is wanted. ``log_likelihood`` and ``Predictive`` want the latent sites, and cannot be used then.
        average: a function likewise, to what is averaged over all draws after the warm-up, those too that thinning
            leaves out; see ``averages``.

    Raises:
        ValueError: for a step size, temperature, tolerance or number of steps out of range, or a missing step size
            that cannot be tuned. ``init`` raises ``TuningError`` where the posterior does not allow tuning.
        TypeError: for a component that does not follow its protocol.
    """

    default_subsampling: ClassVar[SubsamplingScheme] = RandomReshuffle()
    default_temperature: ClassVar[float] = 1.0
    tuned_integrator: ClassVar[Integrator] = BAOAB()
    chooses_gradient: ClassVar[bool] = True

    def __init__(
        self,
        model: Callable,
        step_size: float | Schedule | None = None,
        *,
        subsampling: SubsamplingScheme | None = None,
        integrator: Integrator | None = None,
        gradient: GradientEstimator | None = None,
        preconditioner: Preconditioner | None = None,
        temperature: float | None = None,
        bias_tolerance: float = 0.02,
        steps_per_sample: int | None = None,
        init_strategy: Callable = init_to_uniform,
        keep: Callable | None = None,
        average: Callable | None = None,
    ):
        scheme = self.default_subsampling if subsampling is None else subsampling
        self._model = options.checked_callable("model", model)
        self._step_size = options.checked_step_size(step_size)
        self._subsampling = options.checked_component("subsampling", scheme, SubsamplingScheme)
        if integrator is None:
            integrator = EulerMaruyama() if step_size is not None else self.tuned_integrator
        self._integrator = options.checked_component("integrator", integrator, Integrator)
        if gradient is None and not self.chooses_gradient:
            gradient = Minibatch()
        if gradient is not None:
            options.checked_component("gradient", gradient, GradientEstimator)
        self._gradient = gradient  # None where tuning may choose
        if preconditioner is None and step_size is not None:
            preconditioner = Identity()
        if preconditioner is not None:
            options.checked_component("preconditioner", preconditioner, Preconditioner)
        self._preconditioner = preconditioner  # None until the number of dimensions is known
        self._temperature = self._checked_temperature(temperature)
        self._bias_tolerance = options.checked_tolerance(bias_tolerance)
        options.check_tunable(self._step_size, self._integrator, self._temperature)
        self._steps_per_sample = options.checked_steps(steps_per_sample)
        self._init_strategy = options.checked_callable("init_strategy", init_strategy)
        for argument, function in (("keep", keep), ("average", average)):
            if function is not None:
                options.checked_callable(argument, function)
        self._keeping = Keeping(keep, average)
        self._forget()

    def _checked_temperature(self, given):
        return options.checked_temperature(self.default_temperature if given is None else given)

    def _forget(self):
        """Drop what was found out about particular arguments."""
        self._bindings = Bindings()
        self._progress = Progress()

    # What NumPyro asks of a kernel

    @property
    def model(self) -> FullDataModel:
        """The model as seen on all its data, for ArviZ, ``Predictive`` and ``log_likelihood``."""
        return FullDataModel(self._model)

    @property
    def sample_field(self) -> str:
        return "z" if self._keeping.keep is None else "values"

    @property
    def default_fields(self) -> tuple[str, ...]:
        caller.check_number_of_chains()  # NumPyro's MCMC reads this as it is made
        return (self.sample_field, "diverging")

    @one_thread_at_a_time
    def init(self, rng_key, num_warmup, init_params=None, model_args=(), model_kwargs=None) -> SGState:
        """The state before the first sample, one for each key."""
        check_key(rng_key)
        caller.check_samples(num_warmup)
        arguments = Arguments.of(model_args, model_kwargs)
        binding = self._bindings.to(arguments, self._engine)
        engine = binding.engine
        batch = () if is_prng_key(rng_key) else (rng_key.shape[0],)
        caller.check_keys(self, batch)
        check_initial_values(init_params, engine.target.prototype, batch)
        self._watch()
        if callable(self._step_size):
            options.check_schedule(self._step_size, num_warmup * engine.steps)
        plan = self._plan_of(engine)
        looks = not binding.checked and not any(map(is_traced, arguments.leaves))
        if plan is not None and may_be_staged(plan, arguments):
            self._check_room_ahead(binding, rng_key, num_warmup, batch)
            state = self._start_at_pilot(plan, binding, rng_key, init_params, num_warmup, looks)
        else:
            state = self._start(plan, binding, rng_key, init_params, num_warmup, looks)
        state = state._replace(kept=self._nothing_kept(binding, num_warmup, batch))
        return state if binding.device is None else jax.tree.map(partial(put, sharding=binding.device), state)

    @one_thread_at_a_time
    def sample(self, state: SGState, model_args, model_kwargs) -> SGState:
        """The state after ``steps_per_sample`` inner steps."""
        arguments = Arguments.of(model_args, model_kwargs)
        binding = self._bindings.like(arguments, self._engine)
        engine, data = binding.engine.with_learnt(state.tuning), binding.read(arguments)
        single = is_prng_key(state.rng_key)
        # The counter is the same for all chains; were it batched, it would be recomputed for each.
        i, chains = (state.i, caller.chains_beside()) if single else (state.i[0], state.i.shape[0])
        counts = i >= (jnp.ravel(state.kept.warmup)[0] if state.kept else 0)

        def one_sample(before):
            after = engine.advance(before, i, data, chains)
            draw = partial(engine.target.constrain, after.z, data.arguments)
            return after._replace(
                thermometer=take_temperature(engine, after, i, data.arguments),
                kept=self._keeping.after(draw, counts, before.kept),
            )

        bare = state._replace(tuning=None)  # what was learnt is shared, as one matrix and not one a chain
        new = (one_sample if single else jax.vmap(one_sample))(bare)._replace(tuning=state.tuning)
        if not (caller.has_known_end(self) or (single and caller.progress_bar_reports())):
            self._report(engine, state, new, i, data.arguments)
        return new

    @one_thread_at_a_time
    def postprocess_fn(self, model_args, model_kwargs) -> Callable:
        """From unconstrained values to constrained ones and deterministic sites outside subsampled plates."""
        if self._keeping.keep is not None:
            return lambda values: values
        arguments = Arguments.of(model_args, model_kwargs)
        binding = self._bindings.like(arguments, self._engine)
        target = binding.engine.target
        if target.transforms is not None and not target.deterministic:
            return partial(transform_fn, target.transforms)
        constrain = binding.compiled("constrain", lambda here, z: target.constrain(z, here), arguments, nested=True)
        return one_thread_at_a_time(constrain)

    @one_thread_at_a_time
    def get_constrain_fn(self, model_args, model_kwargs) -> Callable:
        """From unconstrained to constrained values of the latent sites, without running the model if possible."""
        self._watch(in_gibbs=True)
        if self._bindings.current is not None and self._bindings.current.engine.target.transforms is not None:
            # Gibbs asks without the values that it conditions the model on.
            return partial(transform_fn, self._bindings.current.engine.target.transforms)
        arguments = Arguments.of(model_args, model_kwargs)
        binding = self._bindings.like(arguments, self._engine)
        target = binding.engine.target
        if target.transforms is not None:
            return partial(transform_fn, target.transforms)
        return one_thread_at_a_time(
            lambda z: target.constrain(z, binding.read(arguments).arguments, deterministic=False)
        )

    @property
    def is_ensemble_kernel(self) -> bool:
        """False, but to the progress bar, which shows the text of vectorized chains for such kernels only."""
        return isinstance(caller.sample_shown_by_progress_bar(), SGState)

    def refresh(self, state: SGState, model_args, model_kwargs) -> SGState:
        """The state itself: nothing in it that the next sample uses depends on the model's arguments."""
        return state

    def wrap_model(self, wrapper: Callable) -> "StochasticGradientKernel":
        """A copy of this kernel for ``wrapper(model)``.

        Raises:
            ValueError: if this kernel has ``keep``: who asks, as ``Gibbs`` does, wants the latent sites of every draw.
        """
        if self._keeping.keep is not None:
            raise ValueError("a kernel with keep=... keeps no latent sites, which Gibbs wants; use average=... there.")
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    @one_thread_at_a_time
    def minibatch_rows(self, state: SGState) -> dict[str, Array]:
        """The rows that the next sample will take, by plate: shape (steps_per_sample, batch), chains first.

        Available once the kernel has been initialised.
        """
        if self._bindings.current is None:
            raise RuntimeError("minibatch_rows knows the plates once the kernel is initialised; run it first.")
        engine = self._bindings.current.engine.with_learnt(state.tuning)

        def rows(state):
            start, keys, _ = engine.streams(state.i, state.shuffle_key, state.rng_key)
            return {
                plate.name: engine.subsampling.indices(keys[plate.name], start, engine.steps, plate)
                for plate in engine.target.plates
            }

        state = state._replace(tuning=None)  # which vectorized chains share
        return rows(state) if is_prng_key(state.rng_key) else jax.vmap(rows)(state)

    @one_thread_at_a_time
    def settings(self, model_args=None, model_kwargs=None, state: SGState | None = None) -> Settings:
        """How this kernel runs: scheme, integrator, N, B, R, steps, temperature.

        Args:
            model_args: of the model; by default those of the last run.
            model_kwargs: likewise.
            state: of a run, for what was tuned before its first sample: step size, friction, preconditioner.

        Raises:
            RuntimeError: if the model's arguments are not given, and there was no run.
        """
        if model_args is not None or model_kwargs is not None:
            engine = self._bindings.like(Arguments.of(model_args or (), model_kwargs), self._engine).engine
        elif self._bindings.current is not None:
            engine = self._bindings.current.engine
        else:
            raise RuntimeError(
                "settings knows N and B once the kernel is initialised: run it first, or give model_args."
            )
        return Settings.of(engine, self._step_size, self._bias_tolerance, state)

    def better_batch_size(self, state: SGState) -> Better | None:
        """With which an effective draw of a run would cost less, if its tuning tells, and it is worth while.

        Args:
            state: of a run of this kernel; of chains that were tuned each for itself nothing is said.
        """
        binding = self._bindings.current
        if binding is None or state.tuning is None or state.tuning.numbers.ndim > 1:
            return None
        plan = self._plan_of(binding.engine)
        law, report = None if plan is None else law_of(plan, state.tuning), state.tuning.report
        if law is None or not np.isfinite(report.fastest_rate) or len(plan.target.plates) > 1:
            return None
        return better_batch_size(law, float(report.friction), report.rates, binding.engine.target.dim)

    def complaints(self, mcmc: MCMC) -> list[str]:
        """What the draws of a run of this kernel say against it, as its ``ConvergenceWarning`` did; nothing is good.

        Only where the step size was tuned: who gives one may want another law than the posterior's.
        """
        binding = self._bindings.current
        if mcmc.sampler is not self or binding is None or self._step_size is not None:
            return []
        names = [f"{site}{index}" for site, index in binding.engine.target.coordinates()]
        draws = draws_of(mcmc._states, self.sample_field)
        found = complaints(draws, mcmc.last_state, self._temperature, names)
        tuning = self._mine(mcmc.last_state).tuning
        if tuning.numbers.ndim > 1:  # the chains', which share one where there is something to be looked back at
            tuning = jax.tree.map(lambda leaf: leaf[0], tuning)
        return found + complaints_of_tilt(self._plan_of(binding.engine), binding, tuning, draws)

    def _plan_of(self, engine):
        return plan_of(engine, self._step_size, self._bias_tolerance, self._gradient, self._steps_per_sample)

    def tell_of_divergence(self, mcmc: MCMC, before: Any) -> None:
        """Warn if a chain of a run has diverged since a state of it, unless that was told while it ran.

        Args:
            mcmc: the run.
            before: the state that it went on from; None if it began.
        """
        last, binding = self._mine(mcmc.last_state), self._bindings.current
        if last is None or binding is None or self._progress.warned:
            return
        first = first_divergence(last, self._mine(before))

        def details():
            step_size, tuning = jnp.ravel(last.step_size)[first.chain], last.tuning
            if callable(self._step_size):  # that of the sample, and not of the last one
                step_size = self._step_size(binding.engine.steps_before(first.sample) + binding.engine.steps - 1)
            if tuning is not None and tuning.numbers.ndim > 1:
                tuning = jax.tree.map(lambda leaf: leaf[first.chain], tuning)
            return step_size, self._largest_stable_step_size(tuning)

        report(first, details)

    def given(self) -> dict[str, Any]:
        """What the kernel was given, or its class has by default, by the names of arguments; None is left open."""
        return {
            "model": getattr(self._model, "__name__", repr(self._model)),
            "step_size": self._step_size,
            "subsampling": self._subsampling,
            "integrator": self._integrator,
            "gradient": self._gradient,
            "preconditioner": self._preconditioner,
            "temperature": self._temperature,
            "steps_per_sample": self._steps_per_sample,
            "bias_tolerance": self._bias_tolerance,
        }

    def __repr__(self):
        given = self.given()
        shown = [given.pop("model")]
        del given["bias_tolerance"]  # of no effect where nothing is tuned
        shown += [f"{name}={value!r}" for name, value in given.items() if value is not None]
        text = f"{type(self).__name__}({', '.join(shown)})"
        if self._bindings.current is None:
            return text
        here = self.settings()
        return f"{text} on N={here.num_rows} rows, B={here.batch_size}, R={here.batches:g}"

    def get_diagnostics_str(self, state: SGState) -> str:
        """Step size h, mean temperature T so far and number of divergences, for the progress bar; of all chains."""
        return self._progress.text(state, partial(self._largest_stable_step_size, state.tuning))

    def __getstate__(self):
        state = self.__dict__.copy()
        for name in ("_bindings", "_progress"):
            del state[name]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    # Internals

    def _start(self, plan, binding, rng_key, init_params, num_warmup, looks):
        """The initial state where the chains' own keys and values say, or near the mode from there."""
        begin = partial(initial_state, binding.engine, self._init_strategy, self._initial_step_size())
        start = binding.compiled("start", begin, binding.arguments, once=True)
        state, valid = start(rng_key, init_params)
        first = None if is_traced(valid) else state.position.reshape(-1, binding.engine.target.dim)[0]
        if first is not None:
            check_initial_state(valid, first, binding)
        if looks:
            self._check_minibatches(binding, first)
        self._check_room(binding, state, num_warmup, () if is_prng_key(rng_key) else (rng_key.shape[0],))
        if plan is None:
            return state
        tuned = partial(start_near_the_mode, plan)
        state, rise = binding.compiled("tune", tuned, binding.arguments)(state, rng_key)
        (warn_of_tuning if is_traced(rise.nats) else check_tuning)(plan, state.tuning, rise, binding)
        if looks and first is not None:  # near the mode, where large terms that hide small ones are gone
            self._check_minibatches(binding, state.tuning.anchor.position, also_near_0=False)
        return state

    def _start_at_pilot(self, plan, binding, rng_key, init_params, num_warmup, looks):
        """The initial state at a draw of the posterior, with what is left open: the same for all chains."""
        place = partial(start_at_pilot, plan, binding.engine)
        given = caller.initial_values_of_run(self) or init_params
        if any(map(is_traced, jax.tree.leaves(given))):
            given = None
        elif given is init_params and is_prng_key(rng_key):
            given = jax.tree.map(lambda leaf: np.asarray(leaf)[None], given)

        def check(place):
            if looks:
                self._check_minibatches(binding, place)

        try:
            learnt = learn(plan, binding, self._init_strategy, given, num_warmup, check, self._progress.say)
        finally:
            self._progress.say(None)
        check_tuning(plan, learnt.tuning, learnt.rise, binding)
        if looks:  # near the mode, where large terms that hide small ones are gone
            self._check_minibatches(binding, learnt.tuning.anchor.position, also_near_0=False)
        start = binding.compiled("place", lambda _, *inputs: place(*inputs), binding.arguments, once=True)
        return start(rng_key, learnt)

    def _check_room(self, binding, state, num_warmup, batch):
        kept = jax.eval_shape(lambda: self._nothing_kept(binding, num_warmup, batch))
        state = state._replace(kept=kept)
        caller.check_room(self, state, batch, self._one_draw(binding, state, batch))

    def _check_room_ahead(self, binding, rng_key, num_warmup, batch):
        """Before there is a state."""

        def look(key):
            engine = binding.engine
            place = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), engine.target.prototype)
            begin = partial(state_at, engine, 0.0, place)
            self._check_room(binding, (jax.vmap(begin) if batch else begin)(key, key), num_warmup, batch)

        jax.eval_shape(look, rng_key)

    @property
    @one_thread_at_a_time
    def _sample_fn(self) -> Callable:
        """``sample``: what NumPyro asks for before it goes on from a given state.

        Then it does not call ``init``, and this is where a kernel can look at the arguments and at what is wanted. All
        that was learnt is in the state, so that a kernel that was never initialised goes on from one as well.
        """
        run = caller.run_under_way()
        if run is not None and run.mcmc.sampler is self:
            check_key(run.rng_key)
            binding = self._bindings.to(Arguments.of(run.args, run.kwargs), self._engine)
            before = caller.state_before()
            if isinstance(before, SGState):
                caller.check_samples_after(before.i)
                batch = () if is_prng_key(run.rng_key) else (run.rng_key.shape[0],)
                caller.check_room(self, run.before, batch, self._one_draw(binding, run.before, batch))
            self._watch()
        return self.sample

    def _engine(self, arguments: Arguments) -> Engine:
        target = self._inspect(arguments)
        options.check_rows_of(self._subsampling, target.plates)
        options.check_dimensions(self._preconditioner, target.dim)
        check_precision(arguments, arguments.names(self._model))
        return Engine(
            target=target,
            subsampling=self._subsampling,
            integrator=self._integrator,
            gradient=self._gradient or Minibatch(),
            preconditioner=self._preconditioner or (Dense() if target.dim <= MAX_DENSE else Diagonal()),
            temperature=self._temperature,
            schedule=self._step_size if callable(self._step_size) else None,
            steps=self._steps_per_sample or steps_per_pass(self._subsampling, target),
        )

    def _inspect(self, arguments: Arguments) -> Target:
        """The model as minibatches see it; one that they cannot treat, on all its data if those are what is asked."""
        if not isinstance(self._subsampling, FullBatch):
            return inspect_model(self._model, arguments)
        try:
            return inspect_model(self._model, arguments)
        except NotFromMinibatches:
            return inspect_model(self._model, arguments, whole=True)

    def _check_minibatches(self, binding: Binding, place: Array | None, also_near_0: bool = True):
        """Once for a model and its data; what takes all its rows at every step has no minibatches."""
        if isinstance(self._subsampling, FullBatch) or binding.runs_on_minibatches_only:
            return
        try:
            # The data are known also where the keys are traced, and the place too, where tuning has found it.
            with nullcontext() if binding.hold else jax.ensure_compile_time_eval():
                check_minibatches(binding, place, also_near_0)
        except DoesNotRunOnAllRows as error:
            if self._step_size is None or binding.engine.target.blind:  # tuning takes other numbers of rows
                raise
            warnings.warn(str(error), stacklevel=3)
            binding.runs_on_minibatches_only = True
        binding.checked = True

    def _nothing_kept(self, binding, num_warmup, batch):
        """Of all chains, before their first draw."""
        if self._keeping == Keeping(None, None):
            return None
        kept = self._keeping.start(binding.constrained, num_warmup)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *leaf.shape)), kept)

    def _one_draw(self, binding, state, batch):
        """Shapes of what a chain keeps of a draw."""
        if self._keeping.keep is None:
            return binding.constrained
        return {name: jax.ShapeDtypeStruct(leaf.shape[len(batch) :], leaf.dtype) for name, leaf in state.values.items()}

    def _initial_step_size(self):
        if self._step_size is None:
            return jnp.nan  # until it is tuned
        if not callable(self._step_size):
            return self._step_size
        with jax.ensure_compile_time_eval():  # under pmap too, as what is compiled with it is used after that
            return self._step_size(jnp.int32(0))

    def _watch(self, in_gibbs: bool = False):
        """In a run or chain that begins: look for divergences, then and when it has ended; have it compiled once."""
        run = caller.run_under_way()
        known = caller.at_end_of_run(self, self._tell)
        if not in_gibbs or (caller.has_known_end(self) and not known):
            self._progress.begin(None if run is None else self._mine(run.before), new_run=not known)
        binding = self._bindings.current
        if binding is not None and binding.device is not None and not in_gibbs:
            caller.tie_counters(self, binding.device)

    def _mine(self, state):
        """This kernel's state in that of a run, of which it may be a block; None if it is not there."""
        if self._bindings.current is None:
            return None
        sites = set(self._bindings.current.engine.target.prototype)
        states = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, SGState))
        return next((one for one in states if isinstance(one, SGState) and set(one.z) == sites), None)

    def _tell(self, mcmc, before):
        """What a run that has ended says against itself."""
        self.tell_of_divergence(mcmc, before)
        warn_of_convergence(self.complaints(mcmc))

    def _report(self, engine, old, new, i, arguments):
        # where nothing will be said at the end, only of those that do not come back
        newly = is_lost(new) & ~is_lost(old)
        chain = jnp.argmax(newly)
        times = jnp.ravel(new.divergences)[chain]
        first = Divergence(newly.any(), chain, i + 1 - times, times, True)

        def details():
            position = old.position.reshape(-1, engine.target.dim)[first.chain]
            return jnp.ravel(new.step_size)[first.chain], largest_stable_step_size(engine, position, arguments)

        report(first, details)

    @one_thread_at_a_time
    def _largest_stable_step_size(self, tuning):
        """At an initial position."""
        binding = self._bindings.current
        if binding is None:
            return float("nan")
        begin = partial(initial_state, binding.engine, self._init_strategy, 1.0)
        state, _ = binding.compiled("start", begin, binding.arguments)(random.key(0), None)

        def estimate(arguments, position, tuning):
            return largest_stable_step_size(binding.engine.with_learnt(tuning), position, arguments)

        return binding.compiled("stability", estimate, binding.arguments)(state.position, tuning)


class SGLD(StochasticGradientKernel):
    """Stochastic-gradient Langevin dynamics (Welling & Teh 2011): rows drawn with replacement.

    The baseline: its posterior is too wide by Rε/2 in relative variance, R = N/B and ε = hλ. Plain minibatches and
    ``EulerMaruyama`` in every case. Arguments as in ``StochasticGradientKernel``.
    """

    default_subsampling: ClassVar[SubsamplingScheme] = WithReplacement()
    tuned_integrator: ClassVar[Integrator] = EulerMaruyama()
    chooses_gradient: ClassVar[bool] = False


class SGWORLD(StochasticGradientKernel):
    """Stochastic-gradient Langevin without replacement, reshuffled every epoch (arXiv 2306.03521).

    At the ends of epochs the minibatches bias the variance by (Rε)³/24 only, as long as Rε ≲ 1. Arguments as in
    ``StochasticGradientKernel``.
    """

    default_subsampling: ClassVar[SubsamplingScheme] = RandomReshuffle()


class SGD(StochasticGradientKernel):
    """Stochastic gradient descent as a stochastic process: no injected noise.

    What spreads its draws are the minibatches alone. Arguments as in ``StochasticGradientKernel``, but for
    ``temperature``, which is 0.
    """

    default_subsampling: ClassVar[SubsamplingScheme] = WithReplacement()
    default_temperature: ClassVar[float] = 0.0

    def _checked_temperature(self, given):
        if given is not None and given != 0:
            raise TypeError("SGD has temperature 0; for another one use SGLD(model, ..., temperature=T).")
        return self.default_temperature
