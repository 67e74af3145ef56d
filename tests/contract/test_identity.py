import json

import numpy as np
import pytest

from state_rag.contract.findings import findings
from state_rag.contract.identity import FILE, Identity, read_identity, spaces_used
from state_rag.errors import StateRagError
from tests.contract.helpers import reordered, screen

KEYS = ("obsm/X_hvg", "X")


@pytest.fixture
def write(tmp_path):
    def save(cells, name):
        cells.write_h5ad(tmp_path / name)
        return tmp_path / name

    return save


def identify(*files, **more):
    return read_identity(list(files), KEYS, pert_col="gene", control="ctrl", **more)


def test_an_identity_comes_back_from_its_file_as_it_was(write, tmp_path):
    cells = screen()
    identity, fits = identify(write(cells, "a.h5ad"), split={"datasets": {"a": "/a.h5ad"}})
    identity.write(tmp_path)
    assert Identity.read(tmp_path) == identity
    space = identity.spaces["obsm/X_hvg"]
    assert space.names == tuple(cells.var_names[cells.var["highly_variable"]])
    control = cells.obsm["X_hvg"][(cells.obs["gene"] == "ctrl").to_numpy()]
    assert np.allclose(space.control_mean, control.mean(axis=0), atol=1e-6)
    assert not findings(fits, tmp_path)


def test_the_lines_of_all_files_are_known_by_the_level_of_their_controls(write):
    first, second = screen(n_genes=80), screen(n_genes=80)
    second.obs["cell_line"] = "hepg2"
    second.obsm["X_hvg"] = second.obsm["X_hvg"] * np.float32(1.3)
    files = [write(first, "a.h5ad"), write(second, "b.h5ad")]
    levels = identify(*files, context="cell_line")[0].spaces["obsm/X_hvg"].line_levels
    assert levels == {"k562": pytest.approx(1, abs=0.1), "rpe1": pytest.approx(1, abs=0.1), "hepg2": pytest.approx(1.3)}
    assert identify(*files)[0].spaces["obsm/X_hvg"].line_levels == {}


def test_a_run_of_before_has_none_and_a_damaged_or_later_one_is_named(tmp_path):
    assert Identity.read(tmp_path) is None
    (tmp_path / FILE).write_text("{")
    with pytest.raises(StateRagError, match=f"{FILE} cannot be read: it is damaged"):
        Identity.read(tmp_path)
    (tmp_path / FILE).write_text(json.dumps({"format": 99}))
    with pytest.raises(StateRagError, match="format 99.*Update state-rag"):
        Identity.read(tmp_path)


def test_the_fingerprint_follows_the_content_and_not_the_place(write):
    cells = screen()
    one, two = (identify(write(cells, name))[0].files[0] for name in ("a.h5ad", "b.h5ad"))
    assert one.fingerprint == two.fingerprint
    cells.obsm["X_hvg"][3, 2] += 1
    assert identify(write(cells, "c.h5ad"))[0].files[0].fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "order",
            "the genes of X are not those of .*a.h5ad: in another order. Run `state-rag data prepare .*b.h5ad --like",
        ),
        ("fewer", "X lacks 1 of 30 genes .*--common"),
        ("counts", "X holds counts"),
        ("linear", "X holds normalised expression without logarithm"),
        ("log2", "base 2"),
        ("total", "cells that were normalised to 3,000, where 1,000 is expected"),
        ("nan", "holds 1 NaN values"),
        ("infinite", "holds 1 infinite values"),
        ("negative", "holds 1 negative values"),
        ("zeros", "holds nothing but zeros"),
        ("unknown", "not those of X that var/highly_variable says.*unknown"),
    ],
)
def test_a_second_file_that_does_not_fit_is_found_with_the_name_of_its_fault(write, tmp_path, fault, said):
    import re

    cells = screen(seed=1)
    values = cells.X.toarray()
    if fault == "order":
        cells = reordered(cells, np.arange(30)[::-1], np.arange(15))
    elif fault == "fewer":
        cells = cells[:, 1:].copy()
    elif fault == "unknown":
        cells.obsm["X_hvg"] = np.random.default_rng(5).permuted(cells.obsm["X_hvg"], axis=0) + np.float32(0)
        cells.obsm["X_hvg"][:, :] = np.random.default_rng(6).random(cells.obsm["X_hvg"].shape) * (
            np.random.default_rng(7).random(cells.obsm["X_hvg"].shape) < 0.4
        )
    else:
        cells.X = {
            "counts": np.rint(np.expm1(values)),
            "linear": np.expm1(values),
            "log2": values / np.log(2),
            "total": np.log1p(np.expm1(values) * 3),
            "zeros": 0 * values,
        }.get(fault, values)
        if fault in ("nan", "infinite", "negative"):
            cells.X[4, 5] = {"nan": np.nan, "infinite": np.inf, "negative": -1}[fault]
    first = write(screen(), "a.h5ad")
    _, fits = identify(first, write(cells.copy(), "b.h5ad"))
    wrong = [str(finding) for finding in findings(fits, first) if finding.is_wrong]
    assert any(re.search(said, text) for text in wrong), wrong


def test_what_can_stay_is_told_but_not_wrong(write):
    cells = screen()
    values = cells.X.toarray()
    values[:, 4], values[7] = 0, 0
    cells.X = values
    cells.obsm["X_hvg"] = values[:, cells.var["highly_variable"]]
    path = write(cells, "a.h5ad")
    told = findings(identify(path)[1], path)
    assert not any(finding.is_wrong for finding in told)
    text = " ".join(map(str, told))
    assert "1 genes of X are zero in every cell (G4)" in text
    assert "1 of 240 cells have no expression at all" in text


def test_a_large_file_is_sampled(write):
    identity, _ = identify(write(screen(), "a.h5ad"), cells=40)
    scale = identity.spaces["X"].scale
    assert scale.sampled
    assert scale.cells_read <= 40


def test_the_matrices_that_state_reads_follow_from_its_settings():
    assert spaces_used("X_hvg", "all") == ("obsm/X_hvg", "X")
    assert spaces_used("X_state", "gene") == ("obsm/X_state", "obsm/X_hvg")
    assert spaces_used("X_state", "embedding") == ("obsm/X_state",)
    assert spaces_used(None, "all") == ("X",)


def test_another_order_is_no_fault_where_genes_are_found_by_name_and_missing_ones_are(write):
    first = write(screen(), "a.h5ad")
    other = write(reordered(screen(), np.arange(30)[::-1], np.arange(15)[::-1]), "b.h5ad")
    fewer = write(screen()[:, 1:].copy(), "c.h5ad")
    _, fits = identify(first, other, fewer)
    wrong = [finding for finding in findings(fits, first, by_position=False) if finding.is_wrong]
    assert {finding.file.name for finding in wrong} == {"c.h5ad"}
    assert {finding.file.name for finding in findings(fits, first) if finding.is_wrong} == {"b.h5ad", "c.h5ad"}


def test_fewer_cells_of_each_of_many_files_are_read(write, monkeypatch):
    monkeypatch.setattr("state_rag.contract.identity.CELLS_READ", 12)
    monkeypatch.setattr("state_rag.contract.identity._CELLS_OF_MANY", 3)
    files = [write(screen(), f"{number}.h5ad") for number in range(20)]
    for count, expected in ((1, 12), (4, 12), (8, 6), (20, 3)):
        _, fits = identify(*files[:count])
        assert {one.space.scale.cells_read for one in fits} == {expected}
    _, fits = identify(*files, cells=5)
    assert {one.space.scale.cells_read for one in fits} == {5}
