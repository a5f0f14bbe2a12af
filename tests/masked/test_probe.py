"""Probes on embeddings with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_ray.masked.probe import Matrix, linear_probe, nearest
from jepa_ray.streams import stream


def clouds(count: int, classes: int, distance: float, seed: int) -> tuple[Matrix, np.ndarray]:
    """Gaussian clouds around the corners of a simplex, in 12 dimensions of very different scale."""
    rng = stream(seed, "clouds")
    labels = np.arange(count) % classes
    return (rng.standard_normal((count, 12)) + distance * np.eye(classes, 12)[labels]) * 10.0 ** np.linspace(-4, 4, 12), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_separable_classes_are_told_apart(classes: int) -> None:
    train, labels = clouds(400, classes, 9.0, 0)
    test, truth = clouds(300, classes, 9.0, 1)
    probe = linear_probe(train, labels)
    assert (probe(test) == truth).mean() > 0.99
    scaled = (train - train.mean(0)) / train.std(0), (test - train.mean(0)) / train.std(0)
    assert (labels[nearest(*scaled)] == truth).mean() > 0.97


def test_noise_is_at_chance_and_takes_a_strong_penalty() -> None:
    shares = []
    for seed in range(5):
        train, _ = clouds(300, 2, 0.0, 2 * seed)
        test, truth = clouds(500, 2, 0.0, 2 * seed + 1)
        shares.append((linear_probe(train, stream(seed, "labels").integers(0, 2, 300))(test) == truth).mean())
    assert abs(np.mean(shares) - 0.5) < 5 * np.sqrt(0.25 / 2500)


def test_the_same_twice_and_no_look_at_what_is_judged() -> None:
    train, labels = clouds(100, 3, 2.0, 0)
    test, _ = clouds(50, 3, 2.0, 1)
    first, second = linear_probe(train, labels), linear_probe(train.copy(), labels)
    assert first.penalty == second.penalty and (first(test) == second(test)).all()
    assert (first(test[:7]) == first(test)[:7]).all()


def test_a_constant_dimension_and_equal_embeddings() -> None:
    train, labels = clouds(60, 2, 9.0, 0)
    train[:, 3] = 1e6
    assert (linear_probe(train, labels)(train) == labels).mean() > 0.99
    answers = linear_probe(np.ones((20, 4)), np.array([0] * 15 + [1] * 5))(np.ones((6, 4)))
    assert (answers == 0).all(), "only the frequent class can be predicted"


def test_a_fit_is_where_the_gradient_vanishes() -> None:
    """One dimension at +-1, one label each. Minimise log(1 + exp(-2w)) + penalty w^2, with weights (-w, w); derived by hand."""
    train, labels = np.array([[-1.0], [1.0]] * 50), np.array([0, 1] * 50)
    probe = linear_probe(train, labels)
    w = probe._weights[0, 1]
    assert np.isclose(-2 / (1 + np.exp(2 * w)) + 2 * probe.penalty * w, 0, atol=1e-4) and np.isclose(probe._weights[0, 0], -w, atol=1e-4)


def test_nearest_by_cosine_the_first_of_equals() -> None:
    train = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert nearest(train, np.array([[5.0, 1.0], [0.1, 0.2], [0.0, 0.0]]), block=2).tolist() == [0, 1, 0]
