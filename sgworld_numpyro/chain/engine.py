"""The loop over minibatches.

Row numbers and noise are drawn for blocks of steps ahead of the inner loop: what one operation does for a
thousand steps costs a thousandth of its dispatch each, which decides the speed of small models. Since all
randomness is a function of the step's number, the chain does not depend on how it is cut into blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Int

from sgworld_numpyro.chain.data import Data
from sgworld_numpyro.chain.lines import as_rows
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import Anchor, GradientEstimator
from sgworld_numpyro.integrators import Integrator
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.randomness.counter_rng import padded, seed_words
from sgworld_numpyro.randomness.noise import noise_block
from sgworld_numpyro.schedules import Schedule
from sgworld_numpyro.sources import Column, read_rows
from sgworld_numpyro.subsampling import ContiguousScheme, Plate, SubsamplingScheme

# What may be drawn ahead for a block: a loop over blocks is slower than one long block, even one beyond the cache.
BLOCK_BYTES = 2**25
# Longer noise vectors are drawn at their step: written and read back, they would cost more than the dispatch.
NOISE_AHEAD_BYTES = 2**14
# Rows of minibatches up to this size are gathered for the whole block at once.
GATHER_AHEAD_BYTES = 2**11
# Rows that are read from sources for a block, of all chains: two blocks are in memory, and one is copied.
READ_AHEAD_BYTES = 2**24
# Minibatches of this size are worth several threads on CPU; smaller ones are kept from them, see ``_scratch``.
SPLIT_BYTES = 2**19
# The last number of steps that 32-bit counters are trusted with; then the streams are renewed.
LAST_STEP = 2**30
# A period of more passes than these is cut: draws are then at mixed phases of it.
MAX_PASSES = 8


@dataclass(frozen=True)
class Engine:
    """How a chain advances; everything but its state and its data."""

    target: Target
    subsampling: SubsamplingScheme
    integrator: Integrator
    gradient: GradientEstimator
    preconditioner: Preconditioner
    temperature: float
    schedule: Schedule | None
    steps: int
    anchor: Anchor | None = None

    @property
    def period(self) -> int:
        """Steps after which the law of the minibatches of all plates repeats."""
        return period(self.subsampling, self.target.plates)

    def with_learnt(self, tuning: Any) -> "Engine":
        """The engine with what was learnt in place, which may be traced; itself if nothing was."""
        if tuning is None:
            return self
        learnt = self.preconditioner if tuning.preconditioner is None else tuning.preconditioner
        return replace(self, preconditioner=learnt, anchor=tuning.anchor, gradient=tuning.gradient, steps=tuning.steps)

    def advance(self, state: SGState, sample: Int[Array, ""], data: Data, chains: int = 1) -> SGState:
        """The state after ``steps`` steps; its energy is the mean over them, its thermometer as it was.

        Args:
            state: where to start.
            sample: how many samples were taken before: the state's own number, not batched over chains.
            data: what the chain runs on.
            chains: how many chains run side by side, which share the cache.
        """
        start, keys, noise_key = self.streams(sample, state.shuffle_key, state.rng_key)
        seed = seed_words(noise_key)
        taken = self.steps_before(sample)

        def block(carry, offset, length):
            moving, total = carry
            following = self._following(state, sample, offset, length, blocks) if self._reads(data) else None
            ahead = self._draw_ahead(start + offset, taken + offset, length, keys, seed, data, chains, following)
            begin = moving, self._scratch(ahead, data, chains)
            (moving, _), energies = lax.scan(lambda carry, now: self._step(carry, now, seed, data), begin, ahead)
            return moving, total + jnp.sum(energies) / self.steps

        length = self._block_length(data, chains)
        blocks, rest = divmod(self.steps, length)
        moving = self.target.ravel(state.z), state.integrator_state, state.step_size
        carry = moving, jnp.zeros_like(state.potential_energy)
        if blocks > 1:
            offsets = length * jnp.arange(blocks, dtype=jnp.int32)
            carry, _ = lax.scan(lambda carry, offset: (block(carry, offset, length), None), carry, offsets)
        else:
            carry = block(carry, jnp.int32(0), length)
        if rest:
            carry = block(carry, jnp.int32(blocks * length), rest)
        (position, integrator_state, step_size), energy = carry
        diverging = ~(jnp.all(jnp.isfinite(position)) & jnp.isfinite(energy) & (step_size > 0))
        return state._replace(
            i=state.i + 1,
            z=self.target.unravel(position),
            potential_energy=energy,
            step_size=step_size,
            diverging=diverging,
            divergences=state.divergences + diverging,
            integrator_state=integrator_state,
        )

    def steps_before(self, sample: Int[Array, ""]) -> Int[Array, ""]:
        """How many steps come before a sample. It saturates: a schedule is constant after two billion of them."""
        return jnp.minimum(sample, (2**31 - 1) // self.steps - 1) * self.steps

    def streams(self, sample: Int[Array, ""], shuffle_key: Array, noise_key: Array):
        """The first step of a sample, the key of each plate's rows, and that of the noise."""
        per_renewal = self._samples_per_renewal()
        renewal, start = sample // per_renewal, (sample % per_renewal) * self.steps
        plates = len(self.target.plates)
        # One stream for each plate and one for the noise, new ones at every renewal.
        parents = jnp.stack([shuffle_key] * plates + [noise_key])
        streams = jax.vmap(random.fold_in)(parents, renewal * (plates + 1) + jnp.arange(plates + 1))
        keys = {plate.name: key for plate, key in zip(self.target.plates, streams[:-1], strict=True)}
        return start, keys, streams[-1]

    def _following(self, state, sample, offset, length, blocks):
        """The first step of the block after the one at an offset, and the keys of its plates' rows."""
        start, keys, _ = self.streams(sample, state.shuffle_key, state.rng_key)
        next_start, next_keys, _ = self.streams(sample + 1, state.shuffle_key, state.rng_key)
        is_last = offset + length >= blocks * length  # what is left of a sample after its whole blocks is not announced
        choose = partial(jax.tree.map, partial(jnp.where, is_last))
        return jnp.where(is_last, next_start, start + offset + length), choose(next_keys, keys)

    def _reads(self, data):
        """Whether rows are read from sources."""
        return any(isinstance(data.arguments.leaves[slot.leaf], Column) for slot in self.target.slots)

    def _step(self, carry, now, seed, data):
        (position, state, step_size), scratch = carry
        rows, taken = dict(now["rows"]), dict(now["batches"])
        if self.schedule is not None:
            step_size = now["step_size"]
        noise = now["noise"]
        if noise is None and self.temperature > 0:
            noise = self._noise(seed, now["step"][None], position.size, position.dtype)[0]
        for slot in self.target.slots:
            if slot not in taken:
                taken[slot] = self._take(slot, now, data)
                if slot in scratch:
                    half = now["step"] % 2
                    scratch = scratch | {slot: lax.dynamic_update_index_in_dim(scratch[slot], taken[slot], half, 0)}
                    taken[slot] = lax.dynamic_index_in_dim(scratch[slot], half, keepdims=False)
            if slot in data.reordered:
                taken[slot] = as_rows(taken[slot], data.arguments.leaves[slot.leaf].shape, slot.axis)
        for plate in self.target.plates:  # nobody uses these, but the plate must have its shape
            rows.setdefault(plate.name, jnp.zeros(rows_a_step(self.subsampling, plate), jnp.int32))
        gradient = self.gradient(self.target.energy(data.arguments, rows, taken), self.anchor)
        position, state, energy = self.integrator.step(
            gradient, position, state, noise, step_size, self.temperature, self.preconditioner
        )
        return ((position, state, step_size), scratch), energy

    def _take(self, slot, now, data):
        """What a slot takes from its array in one step, in lines if they are stored so."""
        if slot not in data.reordered:
            return self.target.take(slot, data.arguments.leaves[slot.leaf], now["rows"][slot.plate])
        lines, numbers = data.reordered[slot], now["numbers"][slot.plate]
        if len(numbers) == 1:
            return lax.dynamic_slice_in_dim(lines, numbers[0], 1)
        return lines.at[numbers].get(mode="promise_in_bounds")

    def _scratch(self, ahead, data, chains):
        """Where rows are gathered to at their step: room for two minibatches of each slot, used in turn.

        XLA's CPU compiler takes a gather for as large as the array that it reads, and shares a hundred rows out over
        threads, which costs more than the gather. What is written into a part of a buffer it leaves in one.
        """
        if jax.default_backend() != "cpu":
            return {}
        now = jax.tree.map(lambda values: values[0], ahead)
        scratch = {}
        for slot in self.target.slots:
            small = self._row_bytes(slot, data.arguments) < SPLIT_BYTES and slot not in self.target.split
            if small and slot not in ahead["batches"] and not self._is_slice(slot, data, chains):
                batch = jax.eval_shape(lambda slot=slot: self._take(slot, now, data))
                scratch[slot] = jnp.zeros((2, *batch.shape), batch.dtype)
        return scratch

    def _draw_ahead(self, start, taken, length, keys, seed, data, chains, following):
        """Everything random, and what depends on it alone, for ``length`` steps from ``start``."""
        steps = start + jnp.arange(length, dtype=jnp.int32)
        ahead: dict[str, Any] = {"rows": {}, "batches": {}, "numbers": {}, "noise": None, "step": steps}
        contiguous = {slot.plate for slot in data.reordered}
        for plate in self.target.plates:
            slots = [slot for slot in self.target.slots if slot.plate == plate.name]
            if plate.name in contiguous and isinstance(self.subsampling, ContiguousScheme):
                numbers = self.subsampling.batch_numbers(keys[plate.name], start, length, plate)
                ahead["numbers"][plate.name] = numbers.reshape(length, -1)
            places = {"rows": {}, "numbers": ahead["numbers"]}
            if self.target.uses_rows or any(slot not in data.reordered for slot in slots):
                places["rows"][plate.name] = self.subsampling.indices(keys[plate.name], start, length, plate)
            read = [slot for slot in slots if isinstance(data.arguments.leaves[slot.leaf], Column)]
            if read:
                then, keys_then = following
                announced = self.subsampling.indices(keys_then[plate.name], then, length, plate)
                columns = [data.arguments.leaves[slot.leaf] for slot in read]
                rows = read_rows(columns, places["rows"][plate.name], announced, chains)
                ahead["batches"] |= dict(zip(read, rows, strict=True))
            for slot in slots:
                if slot not in read and self._gathers_ahead(slot, data, chains):
                    take = jax.vmap(lambda places, slot=slot: self._take(slot, places, data))
                    ahead["batches"][slot] = take(places)
            late = [slot for slot in slots if slot not in data.reordered and slot not in ahead["batches"]]
            if self.target.uses_rows or late:
                ahead["rows"] |= places["rows"]
        if self.temperature > 0 and self._noise_bytes() <= NOISE_AHEAD_BYTES:
            ahead["noise"] = self._noise(seed, steps, self.target.dim, self.target.dtype)
        if self.schedule is not None:
            sizes = jax.vmap(self.schedule)(taken + jnp.arange(length, dtype=jnp.int32))
            ahead["step_size"] = sizes.astype(self.target.dtype)
        return ahead

    def _noise(self, seed, steps, dim, dtype):
        return noise_block(self.integrator.noise, seed, steps, self.integrator.noise_vectors, dim, dtype)

    def _gathers_ahead(self, slot, data, chains):
        small = self._row_bytes(slot, data.arguments) <= GATHER_AHEAD_BYTES
        return small and not self._is_slice(slot, data, chains)

    def _is_slice(self, slot, data, chains):
        """Whether a minibatch is one line, to be read where it lies; many chains gather even those."""
        if slot not in data.reordered or chains > 1:
            return False
        line = data.reordered[slot]
        return line.shape[1] * line.dtype.itemsize == self._row_bytes(slot, data.arguments)

    def _row_bytes(self, slot, arguments):
        array = arguments.leaves[slot.leaf]
        plate = self.target.plate(slot.plate)
        return array.size // plate.size * rows_a_step(self.subsampling, plate) * array.dtype.itemsize

    def _noise_bytes(self):
        return self.integrator.noise_vectors * self.target.dim * jnp.dtype(self.target.dtype).itemsize

    def _block_length(self, data, chains):
        noise = self._noise_bytes()
        bytes_per_step = 16 + (noise if noise <= NOISE_AHEAD_BYTES else 0)
        bytes_per_step += sum(4 * rows_a_step(self.subsampling, plate) for plate in self.target.plates)
        for slot in self.target.slots:
            if self._gathers_ahead(slot, data, chains):
                bytes_per_step += self._row_bytes(slot, data.arguments)
        longest = max(1, min(self.steps, BLOCK_BYTES // (bytes_per_step * chains)))
        columns = [s for s in self.target.slots if isinstance(data.arguments.leaves[s.leaf], Column)]
        if columns:
            read = sum(self._row_bytes(slot, data.arguments) for slot in columns)
            longest = max(1, min(longest, READ_AHEAD_BYTES // (read * chains)))
        # A divisor of the steps leaves no rest to be compiled apart; whole vectors leave no idle lanes.
        divisors = [n for n in range(-(-longest // 4), longest + 1) if self.steps % n == 0]
        return min(divisors, key=lambda n: (padded(n) / n, -n), default=longest)

    def _samples_per_renewal(self):
        """How many samples fit the counters, and end where a period of the scheme ends."""
        cycle = math.lcm(self.period, self.steps)
        longest = LAST_STEP - LAST_STEP % cycle if cycle <= LAST_STEP else LAST_STEP
        return max(1, longest // self.steps)


def period(scheme: SubsamplingScheme, plates: Sequence[Plate]) -> int:
    """Steps after which the law of a scheme's minibatches of all these plates repeats."""
    return math.lcm(*(scheme.period(plate) for plate in plates))


def steps_per_pass(scheme: SubsamplingScheme, target: Target) -> int:
    """The default number of steps a sample: one period of the scheme, or one pass if batches are independent.

    Draws at period ends are stroboscopic, where reshuffled schemes are least biased. If the batch size and the
    number of rows have few common factors, a period can take very many passes; beyond eight the default is one pass,
    rounded up to whole steps.
    """
    steps, one_pass = period(scheme, target.plates), target.longest_plate.batches
    if steps == 1:
        return 1 if all(rows_a_step(scheme, plate) == plate.size for plate in target.plates) else one_pass
    return steps if steps <= MAX_PASSES * one_pass else one_pass


def rows_a_step(scheme: SubsamplingScheme, plate: Plate) -> int:
    """How many rows a step takes: the plate's batch size, but all rows for ``FullBatch``."""
    return jax.eval_shape(lambda: scheme.indices(random.key(0), jnp.int32(0), 1, plate)).shape[1]


def pieces_a_batch(scheme: ContiguousScheme, plate: Plate) -> int:
    """Of how many pieces of its layout a contiguous scheme makes a batch."""
    return jax.eval_shape(lambda: scheme.batch_numbers(random.key(0), jnp.int32(0), 1, plate)).size
