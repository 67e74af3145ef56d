import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from state_rag.evidence.explanation import SAME
from state_rag.plot.evidence_map import evidence, evidence_figure
from tests.plot.explained import explanation


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_genes_are_rows_from_the_most_raised_to_the_most_lowered():
    found = explanation()
    ax = evidence(found, genes=10, ax=Figure().subplots())
    largest = np.argsort(-np.abs(found.prediction))[:10]
    ordered = largest[np.argsort(-found.prediction[largest])]
    assert names(ax.yaxis) == [found.genes[gene] for gene in ordered]
    assert ax.yaxis_inverted()
    chosen = evidence(found, genes=["G3", "G1"], ax=Figure().subplots())
    assert set(names(chosen.yaxis)) == {"G1", "G3"}


def test_columns_are_the_prediction_the_truth_the_mean_and_the_conditions_as_they_were_measured():
    found, measured = explanation(), np.linspace(-1, 1, 30)
    ax = evidence(found, measured, genes=30, conditions=4, ax=Figure().subplots())
    assert names(ax.xaxis) == [
        "predicted",
        "measured",
        "mean of hepg2",
        *(f"{name} in {context}" for context, name in found.conditions[:4]),
    ]
    drawn = np.concatenate([mesh.get_array() for mesh in ax.collections], axis=1)
    order = np.argsort(-found.prediction)
    wanted = [found.prediction, measured, found.prior, *(found.effects[place] for place in range(4))]
    assert np.allclose(drawn, np.stack(wanted, axis=1)[order])
    assert len({mesh.get_clim() for mesh in ax.collections}) == 1
    assert names(evidence(found, ax=Figure().subplots()).xaxis)[:2] == ["predicted", "mean of hepg2"]


def test_bars_are_the_weights_and_the_legend_names_the_reasons():
    found = explanation()
    ax = evidence(found, conditions=5, ax=Figure().subplots())
    (bars,) = ax.child_axes
    assert np.allclose([bar.get_height() for bar in bars.patches], found.weights[:5])
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [SAME, "text"]


@pytest.mark.parametrize("conditions", [0, 1, 40])
def test_no_one_and_many_conditions_are_drawn(conditions, tmp_path):
    found = explanation(max(conditions, 1))
    if not conditions:
        empty = {
            name: getattr(found, name)[:0]
            for name in ("conditions", "weights", "contributions", "effects", "why", "cells")
        }
        found = dataclasses.replace(found, **empty)
    evidence_figure(found, conditions=40).savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_prediction_of_no_effect_and_dollars_in_names_are_drawn(tmp_path):
    found = explanation()
    nothing = dataclasses.replace(
        found,
        perturbation="$A_1$",
        prior=np.zeros(30),
        contributions=np.zeros((6, 30)),
        effects=np.zeros((6, 30)),
        correction=np.zeros(30),
        priors=dict.fromkeys(found.priors, np.zeros(30)),
    )
    evidence_figure(nothing).savefig(tmp_path / "x.png")
