import csv

import numpy as np
import pytest
import torch
from scipy import stats

from state_rag.retrieval.trace import RetrievalTrace
from state_rag.upstream.retrieval_info import COLUMNS, RetrievalInfo

NAMES = ("AARS", "KARS", "WARS")
GENES = [f"g{row}" for row in range(12)]


def trace_of(name, weights):
    """A trace of one set whose candidates are the other two names."""
    rows = [[row for row, other in enumerate(NAMES) if other != name]]
    return RetrievalTrace((name,), NAMES, np.array(rows), np.ones((1, 2)), np.array([weights]))


NOTHING = RetrievalTrace((), NAMES, np.zeros((0, 0), int), np.zeros((0, 0)), np.zeros((0, 0, 0)))


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def cells():
    """Real cells by perturbation; WARS moves genes 3 (much) and 5 (less)."""
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(2, 0.3, (20, 12)).astype(np.float32) for name in ("non-targeting", "WARS", "AARS")}
    drawn["WARS"][:, 3] += 5
    drawn["WARS"][:, 5] -= 1
    return drawn


def test_a_row_is_written_for_each_cell_in_order(tmp_path, cells):
    path = tmp_path / "eval" / "retrieval_info.csv"
    with RetrievalInfo(path, "non-targeting", GENES) as info:
        for name, cell_type, weights in (
            ("WARS", "k562", [[0.9, 0.2], [0.1, 0.5]]),
            ("AARS", "k562", [[0.6, 0.7]]),
        ):
            size = len(weights)
            batch = {"pert_name": [name] * size, "cell_type": [cell_type] * size}
            info.add(batch, {"pert_cell_emb": torch.from_numpy(cells[name][:size])}, trace_of(name, weights))
        assert not path.exists()
    rows = rows_of(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [row["pert_name"] for row in rows] == ["WARS", "WARS", "AARS"]
    assert rows[0]["retrieved_perturbations"] == "AARS(w=0.90)|KARS(w=0.20)"
    assert [row["selected_perturbations"] for row in rows] == ["AARS", "none", "KARS|WARS"]
    assert [row["n_selected"] for row in rows] == ["1", "0", "2"]
    assert {row["n_retrieved"] for row in rows} == {"2"}
    assert {row["cell_type"] for row in rows} == {"k562"}


def test_differential_genes_are_those_of_the_real_cells_against_the_lines_controls(tmp_path, cells):
    path = tmp_path / "retrieval_info.csv"
    with RetrievalInfo(path, "non-targeting", GENES) as info:
        for name, trace in (("WARS", trace_of("WARS", [[1.0, 0.0]] * 10)), ("non-targeting", NOTHING)):
            for block in np.split(cells[name], 2):
                batch = {"pert_name": [name] * 10, "cell_type": ["k562"] * 10}
                info.add(batch, {"pert_cell_emb": torch.from_numpy(block)}, trace)
    rows = rows_of(path)
    p = stats.ttest_ind(cells["WARS"], cells["non-targeting"], equal_var=False).pvalue
    found = rows[0]["degs"].split("|")
    assert found[:2] == ["g3", "g5"]
    assert found == [GENES[gene] for gene in np.argsort(p)[: len(found)]]
    assert int(rows[0]["n_degs"]) == len(found)
    assert rows[-1]["pert_name"] == "non-targeting"
    assert (rows[-1]["degs"], rows[-1]["n_degs"], rows[-1]["n_retrieved"]) == ("", "0", "0")
    assert rows[-1]["selected_perturbations"] == "none"


def test_without_controls_of_the_line_no_gene_is_named(tmp_path, cells):
    path = tmp_path / "retrieval_info.csv"
    with RetrievalInfo(path, "non-targeting", GENES) as info:
        for name, line in (("WARS", "k562"), ("non-targeting", "hepg2")):
            batch = {"pert_name": [name] * 20, "cell_type": [line] * 20}
            info.add(batch, {"pert_cell_emb": torch.from_numpy(cells[name])}, NOTHING)
    assert {row["n_degs"] for row in rows_of(path)} == {"0"}


def test_nothing_is_written_when_the_prediction_fails(tmp_path):
    path = tmp_path / "retrieval_info.csv"

    def interrupted():
        with RetrievalInfo(path, "non-targeting", GENES):
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, interrupted)
    assert not list(tmp_path.iterdir())


def test_of_several_sources_a_last_column_says_which_proposed_each_candidate(tmp_path, cells):
    path = tmp_path / "retrieval_info.csv"
    plain = trace_of("WARS", [[0.9, 0.2], [0.1, 0.5]])
    by = np.array([[[True, False], [True, True]]])
    trace = RetrievalTrace(*list(vars(plain).values())[:5], ("text", "go"), by)
    with RetrievalInfo(path, "non-targeting", GENES) as info:
        for one, name in ((NOTHING, "non-targeting"), (trace, "WARS")):
            batch = {"pert_name": [name] * 2, "cell_type": ["k562"] * 2}
            info.add(batch, {"pert_cell_emb": torch.from_numpy(cells[name][:2])}, one)
    rows = rows_of(path)
    assert list(rows[0]) == [*COLUMNS, "retrieved_sources"]
    assert [row["retrieved_sources"] for row in rows] == ["", "", "text|text+go", "text|text+go"]
    assert rows[2]["retrieved_perturbations"] == "AARS(w=0.90)|KARS(w=0.20)"
    assert len(rows[2]["degs"].split("|")) == int(rows[2]["n_degs"]) > 0
