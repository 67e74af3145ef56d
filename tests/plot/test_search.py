from types import SimpleNamespace

import numpy as np
import pytest

from state_rag.plot.search import search_figure
from state_rag.plot.style import settle


@pytest.mark.parametrize("context", ["hepg2", "donor 1/CD4 T $x_1$", "a very long name of a line " * 3])
def test_the_title_lies_within_the_figure_however_few_candidates_there_are(context):
    found = SimpleNamespace(
        context=context,
        genes=["A", "B", "C"],
        target=np.array([1.0, -1.0, 0.5]),
        perturbations=["P"],
        measured=np.array([True]),
        score=np.array([0.5]),
        effects=np.array([[0.5, -1.0, 0.2]]),
    )
    figure = search_figure(found)
    settle(figure)
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.width
    assert title.y1 <= figure.bbox.height
    axes = figure.axes[0].get_window_extent()
    assert title.y0 >= axes.y1
