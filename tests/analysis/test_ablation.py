import numpy as np
import pandas as pd
import pytest

from state_rag.analysis.ablation import (
    ALL,
    Ablated,
    ablation_table,
    shown_rows,
    summarise,
)


def ablated(perturbation="P", line="a", seed=0, genes=40, k=4):
    """Each neighbour moves the prediction along a direction of its own; the first towards the real effect."""
    rng = np.random.default_rng(seed)
    control, real = rng.uniform(1, 2, genes), rng.normal(size=genes)
    inclusion = np.linspace(0.9, 0.0, k)
    moves = rng.normal(size=(k, genes))
    moves[0] = real
    whole = control + 0.2 * rng.normal(size=genes) + inclusion @ moves
    return Ablated(
        cell_line=line,
        perturbation=perturbation,
        neighbours=tuple(f"N{number}" for number in range(k)),
        similarity=np.linspace(0.8, 0.2, k),
        inclusion=inclusion,
        cells=10,
        whole=whole,
        without_one=whole - inclusion[:, None] * moves,
        without_any=whole - inclusion @ moves,
        real=control + real,
        control=control,
    )


def test_the_table_says_how_far_the_effect_moves_and_whether_that_was_for_the_better():
    one = ablated()
    table = ablation_table([one]).set_index("neighbour")
    whole, real = one.whole - one.control, one.real - one.control
    for place, name in enumerate([*one.neighbours, ALL]):
        without = (one.without_one[place] if name != ALL else one.without_any) - one.control
        row = table.loc[name]
        assert row["change"] == pytest.approx(np.sqrt(((without - whole) ** 2).sum()))
        assert row["relative_change"] == pytest.approx(row["change"] / np.sqrt((whole**2).sum()))
        assert row["correlation"] == pytest.approx(np.corrcoef(whole, without)[0, 1])
        assert row["pearson_delta"] == pytest.approx(np.corrcoef(whole, real)[0, 1])
        assert row["help"] == pytest.approx(np.corrcoef(whole, real)[0, 1] - np.corrcoef(without, real)[0, 1])
    assert table.loc["N0", "help"] > 0.2
    assert table["rank"].tolist()[:4] == [1, 2, 3, 4]
    assert pd.isna(table.loc[ALL, "rank"])


def test_a_neighbour_without_weight_neither_changes_nor_helps():
    row = ablation_table([ablated()]).set_index("neighbour").loc["N3"]
    assert row["inclusion"] == row["change"] == row["help"] == 0


def test_headlines_count_single_neighbours_apart_from_none_at_all():
    summary = summarise(ablation_table([ablated("P", seed=0), ablated("Q", seed=1), ablated("R", seed=2)]))
    assert summary["conditions"] == 3
    assert summary["neighbours"] == 12
    assert summary["relative_change_without_any"] > summary["relative_change_without_one"]
    assert summary["pearson_delta_with_all"] > summary["pearson_delta_with_none"]
    assert summary["spearman_of_change_and_inclusion"] > 0.5


def test_a_prediction_without_effect_has_no_relative_change():
    flat = ablated()
    still = Ablated(**{**vars(flat), "whole": flat.control, "without_one": np.tile(flat.control, (4, 1))})
    table = ablation_table([still])
    assert table["relative_change"].isna().all()
    assert (table["change"][:4] == 0).all()
    assert summarise(table)["relative_change_without_one"] is None


def test_where_help_is_undefined_it_counts_neither_for_nor_against():
    silent = Ablated(**{**vars(ablated("Q")), "real": ablated("Q").control})
    only, both = (summarise(ablation_table(conditions)) for conditions in ([ablated()], [ablated(), silent]))
    assert both["share_that_helps"] == only["share_that_helps"] > 0
    assert summarise(ablation_table([silent]))["share_that_helps"] is None


def test_without_a_choice_of_genes_the_neighbours_that_matter_most_are_shown():
    table = ablation_table([ablated("P"), ablated("Q", seed=1)])
    ((title, rows),) = shown_rows(table, whole=False, at_most=3)
    assert title == "The 3 of 8 neighbours that change their prediction most in a"
    single = table[table["neighbour"] != ALL]
    assert rows["relative_change"].tolist() == sorted(single["relative_change"], reverse=True)[:3]
    assert [len(rows) for _, rows in shown_rows(table, whole=True)] == [5, 5]
