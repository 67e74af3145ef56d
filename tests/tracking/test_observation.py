import itertools
from dataclasses import replace

import pytest
import torch

from state_rag.tracking.observation import Observation, jaccard, numbers, rank_bands

SETS, CELLS, K = 5, 4, 6
TYPES = ["rpe1", "k562", "rpe1", "hepg2", "k562"]


def observation(scores=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(SETS, CELLS, K, generator=generator)
    logits = torch.randn(SETS, CELLS, K, 2, generator=generator) if scores else None
    if not scores:
        weights = weights / weights.sum(-1, keepdim=True)
    names = [f"GENE{number}" for number in range(SETS)]
    return Observation(names, list(range(SETS)), torch.zeros(SETS, K, dtype=torch.long), weights, logits)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 10, 32, 33, 500])
def test_rank_bands_cover_every_rank_once_in_few_bands(k):
    bands = rank_bands(k)
    covered = [rank for band in bands.values() for rank in range(k)[band]]
    assert covered == list(range(k))
    assert len(bands) <= k.bit_length() + 1
    assert sorted(bands) == list(bands)


def test_bands_are_named_by_the_ranks_in_them():
    assert list(rank_bands(10)) == ["rank_01", "rank_02", "rank_03-04", "rank_05-08", "rank_09-10"]


def test_the_number_selected_is_a_mean_over_cells_overall_and_by_cell_type():
    seen = observation()
    found = numbers(seen, TYPES, TYPES)
    counts = [[sum(w > 0.5 for w in cell) for cell in cells] for cells in seen.weights.tolist()]
    assert float(found["n_selected"]) == pytest.approx(sum(map(sum, counts)) / (SETS * CELLS))
    for name in set(TYPES):
        own = [count for cells, cell_type in zip(counts, TYPES, strict=True) if cell_type == name for count in cells]
        assert float(found[f"n_selected_by_cell_type/{name}"]) == pytest.approx(sum(own) / len(own))


def test_inclusion_is_averaged_within_bands_of_ranks():
    seen = observation()
    found = numbers(seen, TYPES, TYPES)
    values = [w for cells in seen.weights.tolist() for cell in cells for w in cell[2:4]]
    assert float(found["inclusion/rank_03-04"]) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_a_score_is_the_logit_of_inclusion_less_that_of_exclusion():
    seen = observation()
    found = numbers(seen, TYPES, TYPES)
    differences = [pair[1] - pair[0] for pair in seen.scores.reshape(-1, 2).tolist()]
    mean = sum(differences) / len(differences)
    assert float(found["score_mean"]) == pytest.approx(mean, abs=1e-5)
    spread = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    assert float(found["score_std"]) == pytest.approx(spread**0.5, rel=1e-4)


def test_attention_has_its_entropy_and_weights_by_rank_and_no_selection():
    found = numbers(observation(scores=False), TYPES, TYPES)
    assert {"attention_entropy", "attention_max", "attention/rank_01"} <= set(found)
    assert not [name for name in found if "select" in name or "score" in name]


def test_even_attention_has_the_largest_entropy():
    seen = observation(scores=False)
    even = Observation(seen.queries, seen.places, seen.rows, torch.full_like(seen.weights, 1 / K), None)
    assert float(numbers(even, TYPES, TYPES)["attention_entropy"]) == pytest.approx(torch.tensor(float(K)).log().item())


def test_only_cell_types_that_are_shown_have_a_series():
    found = numbers(observation(), TYPES, ["rpe1", "jurkat"])
    assert [name for name in found if "by_cell_type" in name] == ["n_selected_by_cell_type/rpe1"]
    whole = numbers(observation(), TYPES, TYPES)
    assert found["n_selected_by_cell_type/rpe1"] == whole["n_selected_by_cell_type/rpe1"]


def test_no_cell_type_shown_leaves_the_other_numbers():
    assert "n_selected" in numbers(observation(), TYPES, [])


def test_jaccard_is_that_of_the_selected_sets_averaged_over_perturbations():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(3, 7, K, generator=generator)
    weights[:, 2] = 0.1  # nobody selects anything for this one
    indices, counts = jaccard(weights, selects=True)
    for a, b in itertools.product(range(3), repeat=2):
        values = []
        for perturbation in range(7):
            one, other = ({k for k in range(K) if weights[line, perturbation, k] > 0.5} for line in (a, b))
            if one | other:
                values.append(len(one & other) / len(one | other))
        assert float(indices[a, b]) == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert counts[a, b] == len(values) < 7


def test_jaccard_of_nothing_selected_is_not_a_number():
    indices, counts = jaccard(torch.zeros(2, 3, K), selects=True)
    assert indices.isnan().all()
    assert not counts.any()


def test_jaccard_of_attention_compares_weights():
    weights = torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]])
    assert float(jaccard(weights, selects=False)[0][0, 1]) == pytest.approx(0.5 / 1.5)


@pytest.mark.parametrize("scores", [True, False])
def test_of_several_sources_the_mean_weight_of_what_each_proposes_is_told(scores):
    seen = observation(scores)
    by = torch.rand(SETS, K, 2, generator=torch.Generator().manual_seed(1)) > 0.5
    found = numbers(replace(seen, proposed=by), TYPES, TYPES, ("text", "go"))
    kind = "inclusion" if scores else "attention"
    for number, name in enumerate(("text", "go")):
        weights = seen.weights.transpose(1, 2)[by[..., number]].flatten().tolist()
        assert float(found[f"{kind}_by_source/{name}"]) == pytest.approx(sum(weights) / len(weights), rel=1e-5)
    assert not any("by_source" in name for name in numbers(seen, TYPES, TYPES, ("text",)))
