from pathlib import Path

import numpy as np
import pytest

from state_rag.datasets.quickstart.first_look import Column, FirstLook
from state_rag.datasets.quickstart.guesses import (
    gene_share,
    guess_batch,
    guess_control,
    guess_line,
    guess_perturbation,
    kind_of_names,
    same_groups,
    structures,
    words_of,
)

GENES = ["AARS", "KARS", "WARS", "RPL3"]


def column(name, cells, is_text=True):
    """Return a column of one label a cell; None has none."""
    labels = np.array(sorted({cell for cell in cells if cell is not None}), dtype=object)
    places = {label: place for place, label in enumerate(labels)}
    codes = np.array([places.get(cell, -1) for cell in cells], np.int32)
    return Column(name, labels, codes, is_text)


def look(*columns, genes=()):
    return FirstLook(
        Path("cells.h5ad"), 1, len(columns[0].codes), len(genes), {one.name: one for one in columns}, {}, {}, {},
        frozenset(genes),
    )  # fmt: skip


def crossed(perturbations, lines, times=2):
    """Return the labels of cells in which every perturbation meets every line."""
    pairs = [(one, line) for one in perturbations for line in lines for _ in range(times)]
    return [one for one, _ in pairs], [line for _, line in pairs]


PERTURBED, LINES = crossed(["ctrl", *GENES], ["a549", "k562"])


@pytest.mark.parametrize("name", ["gene", "perturbation", "target_gene", "targetGene", "Drug name", "treatment"])
def test_perturbations_by_their_name(name):
    found = guess_perturbation(look(column(name, PERTURBED), column("cell_line", LINES), genes=GENES))
    assert found.value == name
    assert found.sure in ("sure", "likely")


def test_a_column_of_perturbations_is_known_by_control_and_genes_whatever_its_name():
    found = guess_perturbation(look(column("blue", PERTURBED), column("cell_line", LINES), genes=GENES))
    assert found.value == "blue"


def test_guides_are_finer_than_genes_and_rejected_for_it():
    guides = [f"{one}_{i % 2}" for i, one in enumerate(PERTURBED)]
    found = guess_perturbation(look(column("guide_id", guides), column("gene", PERTURBED), genes=GENES))
    assert found.value == "gene"
    assert dict(found.rejected)["guide_id"].startswith("finer: ")


def test_nothing_is_taken_for_perturbations_where_nothing_speaks_for_it():
    found = guess_perturbation(look(column("phase", ["G1", "S"] * 10)))
    assert found.value is None
    assert found.sure == "not found"


def test_the_line_is_not_the_column_of_perturbations():
    perturbation = column("cell_condition", PERTURBED)
    found = guess_line(look(perturbation, column("Donor", LINES)), perturbation)
    assert found.value == "Donor"


def test_counts_and_phases_of_cells_are_no_lines():
    one = look(column("n_cells", ["1", "2"] * 10), column("cell_cycle_phase", ["G1", "S"] * 10))
    assert guess_line(one, None).value is None


def test_the_batch_is_no_column_that_has_another_part():
    sample = column("sample", PERTURBED)
    lane = column("lane", ["1", "2"] * 10)
    assert guess_batch(look(sample, lane), set()).value == "sample"
    found = guess_batch(look(sample, lane), {"sample"})
    assert (found.value, found.sure) == ("lane", "likely")


def test_what_the_user_says_is_not_guessed():
    one = look(column("gene", PERTURBED), column("cell_line", LINES))
    assert guess_perturbation(one, "cell_line").sure == "given"
    assert guess_line(one, None, "gene").value == "gene"
    assert guess_batch(one, set(), "gene").value == "gene"
    assert guess_control(one.columns["gene"], None, "KARS").value == "KARS"


def test_the_control_is_sure_where_one_label_is_named_like_it_in_every_line():
    found = guess_control(column("gene", PERTURBED), column("cell_line", LINES))
    assert (found.value, found.sure) == ("ctrl", "sure")
    assert found.rejected == ()


def test_of_several_controls_the_largest_is_chosen_and_the_others_are_told():
    cells = ["NT-1"] * 3 + ["NT-2"] * 5 + ["NT-3"] * 2 + ["NT-4"] + GENES
    found = guess_control(column("gene", cells), None)
    assert (found.value, found.sure) == ("NT-2", "likely")
    assert [name for name, _ in found.rejected] == ["NT-1", "NT-3", "1 more"]


def test_a_label_that_stands_out_in_cells_is_a_guess_at_the_control():
    cells = ["XYZ1"] * 20 + GENES * 2
    found = guess_control(column("gene", cells), None)
    assert (found.value, found.sure) == ("XYZ1", "guess")
    assert guess_control(column("gene", GENES * 2), None).value is None


def test_a_label_that_stands_out_in_one_line_only_is_no_control():
    cells, lines = crossed(GENES, ["a549", "k562"])
    found = guess_control(column("gene", cells + ["XYZ1"] * 30), column("cell_line", lines + ["a549"] * 30))
    assert found.value is None


def test_perturbations_are_genes_alone_or_combined():
    combined = column("gene", ["ctrl", "AARS+KARS", "WARS_RPL3", "ctrl+AARS", "KARS"])
    one = look(combined, genes=GENES)
    assert gene_share(combined, one) == 1.0
    assert kind_of_names(combined, one)[0] == "genes"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["ENSG00000090861", "ENSG00000065427"], "ensembl"),
        (["Tbx5", "Gata4", "C1orf112"], "genes"),
        (["imatinib 1.0 uM", "sirolimus 0.1 uM"], "other"),
        ([], "other"),
    ],
)
def test_what_perturbations_are_named_after(labels, kind):
    one = column("pert", ["ctrl", *labels])
    assert kind_of_names(one, look(one, genes=["G1"]))[0] == kind


def test_names_in_a_column_of_drugs_are_no_genes_unless_the_file_has_them():
    drugs = column("compound", ["DMSO", "Compound-1", "JQ1"])
    assert kind_of_names(drugs, look(drugs, genes=["G1"])) == (
        "other",
        "by the column's name drugs, such as Compound-1",
    )
    assert kind_of_names(drugs, look(drugs, genes=["JQ1"]))[0] == "genes"


def test_the_column_of_structures_is_one_that_has_one_for_each_perturbation():
    drugs = column("drug", ["DMSO", "A", "B", "A"])
    told = look(drugs, column("canonical_smiles", ["CS", "C", "CC", "C"]))
    assert structures(drugs, told) == "canonical_smiles"
    assert structures(drugs, look(drugs, column("smiles", ["CS", "C", "CC", "O"]))) is None
    assert structures(drugs, look(drugs)) is None


def test_same_groups_under_other_names():
    first = column("gene", PERTURBED)
    assert same_groups(first, column("gene_id", [f"id of {one}" for one in PERTURBED]))
    assert not same_groups(first, column("cell_line", LINES))


def test_words_of_a_name():
    assert {"target", "gene"} <= words_of("target gene") & words_of("targetGene") & words_of("Target.Gene")
