import numpy as np
import pytest

from state_rag.analysis.overlap import analyse, case_study, overlap_between_lines
from state_rag.analysis.records import Retrieved
from state_rag.analysis.tables import describe, study_table
from state_rag.errors import StateRagError


def record(line, name, **weights):
    return Retrieved(line, name, tuple(weights), np.array(list(weights.values())), 5)


RECORDS = [
    record("k562", "P", A=0.9, B=0.8, C=0.1),
    record("rpe1", "P", A=0.9, B=0.2, C=0.9),
    record("k562", "Q", A=0.7, C=0.6, B=0.2),
    record("rpe1", "Q", A=0.6, C=0.7, B=0.1),
    record("k562", "R", A=0.1, B=0.1, C=0.1),
    record("rpe1", "R", A=0.1, B=0.1, C=0.1),
]


def test_jaccard_is_the_mean_over_shared_perturbations_and_leaves_out_two_empty_sets():
    overlap, summary = overlap_between_lines(RECORDS), analyse(RECORDS).summary
    assert overlap.sets.loc["k562", "rpe1"] == pytest.approx((1 / 3 + 1) / 2)
    assert overlap.sets.loc["k562", "k562"] == 1
    assert overlap.n_sets.loc["rpe1", "k562"] == 2
    assert overlap.shared.loc["rpe1", "k562"] == 3
    assert summary["mean_pairwise_jaccard"] == pytest.approx(2 / 3)
    assert (summary["pairs_of_conditions_between_lines"], summary["pairs_of_two_empty_sets"]) == (3, 1)


def test_one_cell_line_has_no_jaccard_index_between_lines():
    summary = analyse(RECORDS[:1]).summary
    assert summary["mean_pairwise_jaccard"] is summary["mean_pairwise_weighted_jaccard"] is None
    assert "no perturbation is predicted in two of them" in " ".join(describe(summary))


def test_the_weighted_index_is_the_sum_of_minima_over_that_of_maxima_and_needs_no_selected_set():
    weak = [record("k562", "P", A=0.4, B=0.1), record("rpe1", "P", A=0.2, C=0.3)]
    overlap = overlap_between_lines(weak)
    assert np.isnan(overlap.sets.loc["k562", "rpe1"])
    assert overlap.weighted.loc["k562", "rpe1"] == pytest.approx(0.2 / (0.4 + 0.1 + 0.3))
    told = " ".join(describe(analyse(weak).summary))
    assert "0.250 weighted by mean inclusion" in told
    assert "undefined for selected sets, since in none of 1 pairs of conditions anything is selected" in told


def test_the_weighted_index_is_that_of_sets_where_inclusion_is_all_or_nothing():
    rng = np.random.default_rng(0)
    draws = [
        Retrieved(line, f"P{number}", tuple("ABCDEF"), (rng.random(6) < 0.5).astype(float), 1)
        for line in ("k562", "rpe1")
        for number in range(20)
    ]
    overlap = overlap_between_lines(draws)
    np.testing.assert_allclose(overlap.weighted, overlap.sets)


def test_inclusions_of_zero_throughout_have_no_index():
    assert overlap_between_lines([record("a", "P", A=0.0), record("b", "P", A=0.0)]).weighted.isna().all().all()


def test_inclusion_by_rank_averages_over_conditions():
    ranks = analyse(RECORDS).summary["inclusion_by_rank"]
    expected = [np.mean([record.inclusion[rank] for record in RECORDS]) for rank in range(3)]
    assert ranks == pytest.approx(expected, abs=1e-3)


def test_similarity_is_the_cosine_of_embeddings_and_missing_where_one_is_unknown():
    vectors = {"P": np.array([1.0, 0]), "A": np.array([2.0, 0]), "B": np.array([0, 1.0])}
    table = analyse(RECORDS, vectors=vectors).neighbours
    of_p = table[(table["perturbation"] == "P") & (table["cell_line"] == "k562")].set_index("neighbour")["similarity"]
    assert of_p["A"] == 1
    assert of_p["B"] == 0
    assert np.isnan(of_p["C"])


def planted(seed=0, conditions=30):
    """Neighbours whose inclusion rises with how well their effect agrees."""
    rng = np.random.default_rng(seed)
    effects, records = {}, []
    for number in range(conditions):
        query = f"P{number}"
        effects[query] = rng.normal(size=50)
        weights = {}
        for rank in range(6):
            share = rng.uniform(-1, 1)
            name = f"{query}N{rank}"
            effects[name] = share * effects[query] + 0.5 * rng.normal(size=50)
            weights[name] = float(np.clip(0.5 + 0.4 * share + 0.05 * rng.normal(), 0, 1))
        records.append(record("k562", query, **weights))
    return records, effects


def test_a_selector_that_prefers_agreeing_neighbours_is_recognised():
    records, effects = planted()
    summary = analyse(records, effect_of=lambda name, line: effects.get(name)).summary
    within = summary["inclusion_against_agreement"]
    assert within["mean_spearman_within_conditions"] > 0.8
    assert within["p_wilcoxon_against_zero"] < 0.001
    against = summary["agreement_of_selected_and_not"]
    assert against["mean_of_selected"] > 0.3 > 0 > against["mean_of_not_selected"]


def test_a_selector_that_ignores_effects_is_not_taken_for_one_that_does_not():
    records, effects = planted()
    rng = np.random.default_rng(1)
    blind = [Retrieved("k", r.perturbation, r.neighbours, rng.random(6), 1) for r in records]
    within = analyse(blind, effect_of=lambda name, line: effects.get(name)).summary["inclusion_against_agreement"]
    assert abs(within["mean_spearman_within_conditions"]) < 0.2


def test_truth_tells_mates_from_misleading_neighbours():
    truth = {"mates": {"P": ["A"]}, "misleading": {"P": ["B"]}}
    found = analyse(RECORDS[:2], truth=truth).summary["inclusion_by_relation"]
    assert found["module mate"] == {"mean": pytest.approx(0.9), "candidates": 2}
    assert found["misleading"]["mean"] == pytest.approx(0.5)
    assert found["other"]["mean"] == pytest.approx(0.5)


def test_a_case_study_shows_each_lines_inclusion_in_order_of_rank():
    study = case_study(analyse(RECORDS), "Q")
    assert study.index.tolist() == ["A", "C", "B"]
    assert study.loc["C"].to_dict() == {"k562": 0.6, "rpe1": 0.7}


def test_a_gene_that_was_not_predicted_is_an_error_with_close_spellings():
    records = [record("k562", "WARS", A=0.5), record("k562", "MARS", A=0.5), record("k562", "TP53", A=0.5)]
    with pytest.raises(StateRagError, match="'WARS1'; close spellings: WARS1 -> WARS, .*; predicted are MARS, "):
        case_study(analyse(records), "WARS1")


def test_of_several_sources_it_is_told_how_much_is_included_of_what_each_proposed():
    rows = [
        Retrieved("k", "P", ("A", "B", "C"), np.array([0.9, 0.1, 0.5]), 5, ("text", "go", "text+go")),
        Retrieved("k", "Q", ("A", "B"), np.array([0.3, 0.2]), 5, ("none", "text")),
    ]
    found = analyse(rows)
    assert found.neighbours["source"].tolist() == ["text", "go", "text+go", "none", "text"]
    by = found.summary["inclusion_by_source"]
    assert by["text"] == {"mean": pytest.approx((0.9 + 0.5 + 0.2) / 3), "candidates": 3}
    assert by["go"] == {"mean": pytest.approx(0.3), "candidates": 2}
    assert "mean inclusion, proposed by go: 0.300 over 2 candidates" in describe(found.summary)
    table = study_table("P", case_study(found, "P"), {"A": "text", "B": "go", "C": "text+go"})
    assert [column.header for column in table.columns] == ["neighbour", "proposed by", "k"]
    assert "source" not in analyse(RECORDS).neighbours
