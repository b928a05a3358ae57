"""Regression on a table: how far diabetes has progressed after a year (scikit-learn's bundled data, 442 patients)."""

import numpy as np
from torch import nn


def data(test=88):
    """Ten measurements of each patient, and one real number to predict, scaled to mean 0 and deviation 1."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = 20 * x[order], y[order, None]
    y = (y - y[test:].mean()) / y[test:].std()
    return x[test:], y[test:], x[:test], y[:test]


def model(input_shape, classes, hidden=64, dropout=0.1):
    """classes is None: the data have none."""
    (width,) = input_shape
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))
