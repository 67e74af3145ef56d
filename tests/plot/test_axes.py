"""Every picture of the API draws on the axes that it is given, and on pyplot's current ones otherwise."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import state_rag as sr
from state_rag.public import NAMES
from tests.plot.explained import explanation

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
NEIGHBOURS = pd.DataFrame(
    {
        "cell_line": ["a", "b"] * 60,
        "rank": np.repeat(np.arange(1, 11), 12),
        "inclusion": RNG.random(120),
        "similarity": RNG.random(120),
    }
)
SQUARE = pd.DataFrame([[1.0, 0.3], [0.3, 1.0]], index=["a", "b"], columns=["a", "b"])
ABLATED = pd.DataFrame(
    {
        "cell_line": "a",
        "perturbation": ["P", "P", "P", "Q", "Q", "Q"],
        "rank": pd.array([1, 2, None, 1, 2, None], dtype="Int64"),
        "inclusion": RNG.random(6),
        "relative_change": RNG.random(6),
        "help": RNG.normal(size=6),
        "pearson_delta": 0.6,
        "pearson_delta_without": RNG.random(6),
    }
)
ARGUMENTS = {
    "distribution": (
        {"ours": pd.DataFrame({"mse": [1.0, 2.0, 4.0]}), "no effect": pd.DataFrame({"mse": [3.0]})},
        "mse",
    ),
    "effect_scatter": (RNG.normal(size=20), RNG.normal(size=20), np.arange(20) < 5, "P in a"),
    "cells": (RNG.normal(size=(9, 2)), RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2)), "P in a"),
    "jaccard": (SQUARE, SQUARE.astype(int)),
    "inclusion_by_rank": (NEIGHBOURS,),
    "inclusion_against": (NEIGHBOURS, "similarity"),
    "ablated_neighbours": (ABLATED,),
    "ablated_conditions": (ABLATED,),
    "evidence": (explanation(), RNG.normal(size=30)),
    "learning_curves": ({"run": pd.DataFrame({"step": [1, 2], "val_loss": [2.0, 1.0]})}, "val_loss"),
}


def test_every_public_picture_is_tried_here():
    assert set(ARGUMENTS) == set(NAMES["state_rag.plot"])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_picture_is_drawn_on_the_given_axes_and_nowhere_else(name):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    drawn = getattr(sr.plot, name)(*ARGUMENTS[name], ax=right)
    assert drawn is right
    figure.draw_without_rendering()
    assert right.has_data()
    assert not left.has_data()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_without_axes_a_picture_is_drawn_on_the_current_ones(name):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    drawn = getattr(sr.plot, name)(*ARGUMENTS[name])
    assert isinstance(drawn, Axes)
    assert drawn is ax
    plt.close(figure)


def test_a_scatter_says_the_correlation_and_the_number_of_differential_genes():
    real = np.arange(10.0)
    ax = sr.plot.effect_scatter(real, 2 * real, real > 6, "P", ax=Figure().subplots())
    assert ax.get_title() == "P\nr = 1.00, 3 DEGs"
    assert ax.get_xlim() == pytest.approx((-18.9, 18.9))


def test_boxes_are_named_and_the_direction_is_said():
    ax = sr.plot.distribution(*ARGUMENTS["distribution"], ax=Figure().subplots())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "no effect"]
    assert ax.get_xlabel() == "lower is better"
