import pytest

from state_rag.embeddings.none_known import none_known
from state_rag.names import drug_of


@pytest.fixture
def table(tmp_path):
    (tmp_path / "drugs.csv").write_text("name,a,b\nAfatinib,1,0\nBosutinib,0,1\n")
    return tmp_path / "drugs.csv"


def test_labels_of_drugs_with_a_dose_lead_to_the_drug(table):
    labels = [f"[('{drug}', {dose}, 'uM')]" for drug in ("Afatinib", "Bosutinib", "Other") for dose in (0.5, 5.0)]
    said = none_known(table, labels)
    assert "for none of the 6 perturbations" in said
    assert "Of the 3 drugs (Afatinib, Bosutinib, Other) the file knows 2" in said
    assert "data.kwargs.pert_col" in said


def test_other_labels_are_told_to_use_the_same_names(table):
    assert "the same kind of names" in none_known(table, ["AARS", "KARS"])


@pytest.mark.parametrize("label", ["AARS", "[('x'", "[(1, 2)]", "[()]", "(A)", "[('A' + 'B', 1)]"])
def test_what_is_no_drug_label_has_no_drug(label):
    assert drug_of(label) is None
