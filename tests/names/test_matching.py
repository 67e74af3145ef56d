import csv

from state_rag.names.matching import AMBIGUOUS, CASE, FILE, OtherName, OtherNames, other_name_of, write_other_names
from tests.names.test_symbols import TABLE


def test_a_perturbation_is_found_as_it_is_written_before_any_other_name():
    names = OtherNames(["AARS", "KIAA1804", "QARS", "drug"], TABLE)
    assert names.matched(["AARS", "AARS1", "MAP3K21", "QARS1", "drug"], "go") == {
        "AARS": "AARS",
        "KIAA1804": "MAP3K21",
        "drug": "drug",
    }
    assert names.told("go") == "1 by another name: KIAA1804 = MAP3K21"


def test_of_several_other_names_the_best_kind_is_taken_and_both_directions_work():
    assert OtherNames(["ALARS"], TABLE).matched(["AARS", "AARS1"], "go") == {"ALARS": "AARS1"}
    assert OtherNames(["AARS1"], TABLE).matched(["ALARS", "AARS"], "go") == {"AARS1": "AARS"}
    assert OtherNames(["ENSG00000090861"], TABLE).matched(["AARS"], "go") == {"ENSG00000090861": "AARS"}
    assert OtherNames(["AARS1"], TABLE).matched(["ENSG00000090861"], "go") == {"AARS1": "ENSG00000090861"}


def test_case_is_the_last_resort():
    names = OtherNames(["AARS"], TABLE)
    assert names.matched(["aars1", "Aars"], "mouse") == {"AARS": "Aars"}
    assert names.used["mouse"][0].kind == CASE


def test_ambiguous_names_are_reported_and_never_substituted():
    names = OtherNames(["QARS", "AARS"], TABLE)
    known = names.matched(["QARS1", "EPRS1", "AARS"], "go")
    assert known == {"AARS": "AARS"}
    assert names.unclear({"go": known}) == {"QARS": ("QARS1", "EPRS1")}
    assert names.unclear({"go": ["QARS", "AARS"]}) == {}
    assert OtherName("QARS", "QARS1 EPRS1", AMBIGUOUS) in names.rows({"go": known})


def test_without_a_table_names_are_as_they_are():
    names = OtherNames(["AARS"])
    assert names.wanted() == ["AARS"]
    assert names.matched(["AARS1"], "go") == {}
    assert names.rows() == ()


def test_two_names_of_one_gene_share_its_row_and_neither_is_taken_for_the_other():
    names = OtherNames(["AARS", "AARS1"], TABLE)
    assert names.matched(["AARS1"], "go") == {"AARS": "AARS1", "AARS1": "AARS1"}
    assert other_name_of(names.rows(), ["AARS", "AARS1"]) == {}


def test_a_run_is_asked_by_other_names_where_they_are_clear(tmp_path):
    names = OtherNames(["AARS", "KIAA1804", "QARS"], TABLE)
    names.matched(["aars1", "MAP3K21"], "go")
    rows = names.rows({"go": ["AARS", "KIAA1804"]})
    asked = other_name_of(rows, ["AARS", "KIAA1804", "QARS"])
    assert asked == {
        "AARS1": "AARS",
        "ALARS": "AARS",
        "ENSG00000090861": "AARS",
        "aars1": "AARS",
        "MAP3K21": "KIAA1804",
    }
    write_other_names(rows, tmp_path)
    with open(tmp_path / FILE, newline="") as file:
        told = list(csv.DictReader(file))
    assert {"perturbation": "KIAA1804", "other_name": "MAP3K21", "kind": "approved", "used_for": "go"} in told
    assert {"perturbation": "QARS", "other_name": "QARS1 EPRS1", "kind": "ambiguous", "used_for": ""} in told
    assert {"perturbation": "AARS", "other_name": "ALARS", "kind": "alias", "used_for": ""} in told
    write_other_names((), tmp_path)
    assert not (tmp_path / FILE).exists()
