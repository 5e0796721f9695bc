"""posteriors: SGLD in PyTorch, one chain, a loop over steps as its users write it."""

import numpy as np
import torch
from harness import main
from posteriors.sgmcmc import sgld

torch.set_num_threads(1)


def gaussian(weights, batch, rows):
    (x,) = batch
    mean = weights["mean"]
    likelihood = -0.5 * ((x - mean) ** 2).sum(1).mean()
    return rows * likelihood - 0.005 * (mean**2).sum(), torch.tensor([])


def logistic(weights, batch, rows):
    x, y = batch
    logits = x @ weights["weights"]
    likelihood = (y * logits - torch.nn.functional.softplus(logits)).mean()
    return rows * likelihood - 0.5 * (weights["weights"] ** 2).sum(), torch.tensor([])


def network(weights, batch, rows):
    x, y = batch
    logits = torch.tanh(x @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]
    prior = -0.5 * sum((leaf**2).sum() for leaf in weights.values())
    return prior - rows * torch.nn.functional.cross_entropy(logits, y), torch.tensor([])


def draw(log_posterior, weights, data, batch_size, step_size, samples, thinning):
    """Samples of one chain."""
    rows = len(data[0])
    transform = sgld.build(lambda weights, batch: log_posterior(weights, batch, rows), lr=step_size)
    state, draws = transform.init(weights), []
    for _ in range(samples):
        for _ in range(thinning):
            picked = torch.randint(rows, (batch_size,))
            state, _ = transform.update(state, tuple(array[picked] for array in data))
        draws.append(state.params)
    return draws


DENSITIES = {"W1": gaussian, "W2": logistic, "W3": network}
SHAPES = {"b1": (100,), "b2": (10,), "w1": (784, 100), "w2": (100, 10)}


def prepare(task, data):
    """A function that runs the chain."""
    rows = tuple(torch.from_numpy(data[name]) for name in ("x", "y") if name in data)
    if task.workload == "W3":
        rows = rows[0], rows[1].long()
        weights = {name: 0.05 * torch.randn(shape) for name, shape in SHAPES.items()}
    else:
        weights = {"mean" if task.workload == "W1" else "weights": torch.from_numpy(data["start"][0])}

    def run(seed):
        torch.manual_seed(seed)
        density = DENSITIES[task.workload]
        draws = draw(density, weights, rows, task.batch_size, task.step_size, task.samples, task.thinning)
        return [np.stack([one[name].numpy() for one in draws])[None] for name in weights]

    return run


METHODS = {"SGLD": prepare}
USER_CODE = {"SGLD": (logistic, draw)}

if __name__ == "__main__":
    main(METHODS, USER_CODE, ("posteriors", "torch"))
