import numpy as np
import pytest
from scipy import sparse

from state_rag.contract.matrices import ArrayRows
from state_rag.effects import cell_sums
from state_rag.effects.cell_sums import sum_cells
from state_rag.effects.group_totals import GroupTotals


def plain(values, group_of, group):
    own = values[group_of == group].astype(float)
    return len(own), own.mean(axis=0), own.std(axis=0, ddof=1)


SPARSE = (np.float32, np.float64, np.int64, np.uint8)
DENSE = (*SPARSE, np.float16, np.dtype(">f4"))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        *((np.asarray, dtype) for dtype in DENSE),
        *((sparse.csr_matrix, dtype) for dtype in SPARSE),
        (sparse.csc_matrix, np.float32),
    ],
)
def test_sums_of_every_type_are_those_of_a_loop_in_memory_and_mapped(form, dtype, mapped, monkeypatch):
    monkeypatch.setattr(cell_sums, "IN_MEMORY", 0 if mapped else 2**28)
    monkeypatch.setattr(cell_sums, "BLOCK_VALUES", 40)
    rng = np.random.default_rng(0)
    values = (rng.integers(0, 9, (60, 7)) * rng.integers(0, 2, (60, 7))).astype(dtype)
    group_of = rng.integers(-1, 3, 60)
    found = sum_cells(ArrayRows(form(values)), [("a",), ("b",), ("c",), ("none",)], group_of)
    assert isinstance(found.sums, np.memmap) == mapped
    for group in range(3):
        count, mean, std = plain(values, group_of, group)
        assert found.cells[group] == count
        np.testing.assert_allclose(found.sums[group] / count, mean, rtol=1e-12)
        np.testing.assert_allclose(np.sqrt(found.squares[group] / (count - 1)), std, rtol=1e-12)
    assert found.cells[3] == 0
    assert not found.sums[3].any()


def test_a_value_that_is_no_number_spoils_its_own_group_and_gene_only():
    values = np.ones((6, 3))
    values[0, 1], values[1, 2] = np.nan, np.inf
    for form in (np.asarray, sparse.csr_matrix):
        found = sum_cells(ArrayRows(form(values)), [("a",), ("b",)], np.array([0, 0, 0, 1, 1, 1]))
        assert np.isfinite(found.sums).tolist() == [[True, False, False], [True, True, True]]
        assert found.squares[1].tolist() == [0, 0, 0]


def test_totals_do_not_depend_on_how_groups_lie_in_what_is_joined():
    rng = np.random.default_rng(1)
    values, group_of = rng.normal(3, 1, (90, 5)), rng.integers(0, 6, 90)
    groups = [("k562", f"P{number}") for number in range(6)]
    once, parts = GroupTotals(squares=True), GroupTotals(squares=True)
    once.add(ArrayRows(values), groups, group_of, progress=False)
    for chosen, order in ((slice(0, 40), [3, 1, 0, 2, 5, 4]), (slice(40, 90), [5, 4, 0, 1, 2, 3])):
        place = np.argsort(order)
        found = sum_cells(ArrayRows(values[chosen]), [groups[one] for one in order], place[group_of[chosen]])
        parts.join(found, [groups[one] for one in order])
    assert parts.groups() == [groups[one] for one in (3, 1, 0, 2, 5, 4)]
    for number, group in enumerate(groups):
        for totals in (once, parts):
            count, mean, std = plain(values.astype(np.float32), group_of, number)
            assert totals.cells[group] == count
            np.testing.assert_allclose(totals.mean(group), mean, rtol=1e-6)
            np.testing.assert_allclose(totals.std(group), std, rtol=1e-6)


def test_a_group_that_is_left_out_or_told_twice_counts_as_it_should():
    totals = GroupTotals()
    found = sum_cells(ArrayRows(np.arange(8.0).reshape(4, 2)), [("a",), ("b",), ("c",)], np.array([0, 1, 1, 2]))
    totals.join(found, [("l", "x"), None, ("l", "x")])
    assert totals.groups() == [("l", "x")]
    assert totals.cells == {("l", "x"): 2}
    assert totals.mean(("l", "x")).tolist() == [3, 4]
    with pytest.raises(ValueError, match="squares=True"):
        totals.std(("l", "x"))
