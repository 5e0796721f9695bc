"""Models of groups: centred and not, with few rows and with many, of one effect a group and of several."""

import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.zoo.posterior import arrays, posterior, rows, taken


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _effects(name, groups, mean, scale, centred):
    """One effect a group; not centred, its standardised values are the latent sites."""
    with numpyro.plate("groups", groups):
        if centred:
            return numpyro.sample(name, dist.Normal(mean, scale))
        standard = numpyro.sample("standard", dist.Normal(0, 1))
    return numpyro.deterministic(name, mean + scale * standard)


# --- Radon: 85 counties, most of a few houses, which hardly differ ---


def _radon(counties=85, houses=919):
    rng = np.random.default_rng(27)
    shares = rng.lognormal(0, 1.1, size=counties)
    county = np.concatenate(
        [np.arange(counties), rng.choice(counties, size=houses - counties, p=shares / shares.sum())]
    )
    rng.shuffle(county)
    basement = rng.random(houses) < 0.83
    level = 1.35 + 0.16 * rng.normal(size=counties)
    return arrays(county, ~basement, level[county] - 0.65 * ~basement + 0.75 * rng.normal(size=houses))


def _radon_model(county, first_floor, log_radon, centred):
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    level = _effects("level", 85, mean, scale, centred)
    with rows(log_radon, 46):
        here, floor, y = taken(county, first_floor, log_radon)
        numpyro.sample("obs", dist.Normal(level[here] + slope * floor, sigma), obs=y)


@posterior(_radon, reference_model=lambda *data: _radon_model(*data, centred=False))
def radon_centred(county, first_floor, log_radon):
    """A funnel: the mode has a scale of zero, the posterior does not."""
    _radon_model(county, first_floor, log_radon, centred=True)


@posterior(_radon)
def radon_noncentred(county, first_floor, log_radon):
    _radon_model(county, first_floor, log_radon, centred=False)


# --- Eight groups ---


def _schools(pupils):
    rng = np.random.default_rng(21)
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]) / 10
    school = rng.permutation(np.repeat(np.arange(8), pupils))
    return arrays(school, effects[school] + 5 * rng.normal(size=len(school)))


def _schools_model(school, score, batch_size, centred):
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    scale = numpyro.sample("scale", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10))
    effect = _effects("effect", 8, mean, scale, centred)
    with rows(score, batch_size):
        here, y = taken(school, score)
        numpyro.sample("obs", dist.Normal(effect[here], sigma), obs=y)


@posterior(lambda: _schools(30), reference_model=lambda *data: _schools_model(*data, 24, centred=False), quick=True)
def eight_schools(school, score):
    """Centred, and 30 pupils a school say little: errors of 0.9 beside a scale near 1."""
    _schools_model(school, score, 24, centred=True)


def _standardised_effects(school, score):
    """Centred, with the sites of the model that is not."""
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    scale = numpyro.sample("scale", dist.HalfNormal(2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10))
    effect = _effects("effect", 8, mean, scale, centred=True)
    numpyro.deterministic("standard", (effect - mean) / scale)
    with rows(score, 40):
        here, y = taken(school, score)
        numpyro.sample("obs", dist.Normal(effect[here], sigma), obs=y)


@posterior(lambda: _schools(500), reference_model=_standardised_effects, nuts={"target_accept_prob": 0.95})
def curved_ridge(school, score):
    """Not centred, and 500 rows a group determine mean + scale · standard, but not its factors."""
    _schools_model(school, score, 40, centred=False)


# --- Many rows ---


def _clinics(groups=50, patients=100_000):
    rng = np.random.default_rng(22)
    x = rng.normal(size=(patients, 3))
    clinic = rng.integers(0, groups, size=patients)
    level = -0.5 + 0.5 * rng.normal(size=groups)
    return arrays(clinic, x, rng.random(patients) < _sigmoid(level[clinic] + x @ [0.5, -0.3, 0.1]))


@posterior(_clinics)
def logistic_hierarchy(clinic, x, y):
    """50 groups of 2 000 rows, centred."""
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([3]).to_event(1))
    level = _effects("level", 50, mean, scale, centred=True)
    with rows(y, 200):
        here, xb, yb = taken(clinic, x, y)
        numpyro.sample("obs", dist.Bernoulli(logits=level[here] + xb @ weights), obs=yb)


# --- Several effects ---


def _growth(groups=30, each=40):
    rng = np.random.default_rng(23)
    root = np.diag([0.8, 0.4]) @ np.linalg.cholesky([[1, -0.5], [-0.5, 1]])
    effects = np.array([1.0, 0.5]) + rng.normal(size=(groups, 2)) @ root.T
    group = rng.permutation(np.repeat(np.arange(groups), each))
    time = rng.uniform(-1.5, 1.5, size=len(group))
    y = effects[group, 0] + effects[group, 1] * time + 0.7 * rng.normal(size=len(group))
    return arrays(group, time, y)


def _growth_quantities(draws, data):
    """Of the Cholesky factor of a 2 × 2 correlation only the correlation varies freely."""
    kept = {name: value for name, value in draws.items() if name != "factor"}
    return kept | {"correlation": draws["factor"][..., 1, 0]}


@posterior(_growth, quantities=_growth_quantities)
def varying_slopes(group, time, y):
    """Intercept and slope of each group, correlated, centred."""
    mean = numpyro.sample("mean", dist.Normal(0, 2).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("groups", 30):
        effects = numpyro.sample("effects", dist.MultivariateNormal(mean, scale_tril=scale[:, None] * factor))
    with rows(y, 40):
        here, timeb, yb = taken(group, time, y)
        numpyro.sample("obs", dist.Normal(effects[here, 0] + effects[here, 1] * timeb, sigma), obs=yb)


def _answers(persons=100, items=20):
    rng = np.random.default_rng(24)
    ability, difficulty, discrimination = (
        rng.normal(size=persons),
        rng.normal(size=items),
        np.exp(0.3 * rng.normal(size=items)),
    )
    person, item = np.divmod(rng.permutation(persons * items), items)
    right = rng.random(len(person)) < _sigmoid(discrimination[item] * (ability[person] - difficulty[item]))
    return arrays(person, item, right)


@posterior(_answers)
def item_response(person, item, right):
    """Two parameters an item: how hard it is, and how well it tells persons apart."""
    with numpyro.plate("persons", 100):
        ability = numpyro.sample("ability", dist.Normal(0, 1))
    with numpyro.plate("items", 20):
        difficulty = numpyro.sample("difficulty", dist.Normal(0, 1))
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0, 0.5))
    with rows(right, 50):
        who, what, answer = taken(person, item, right)
        logits = discrimination[what] * (ability[who] - difficulty[what])
        numpyro.sample("obs", dist.Bernoulli(logits=logits), obs=answer)
