import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.names.symbols import ALIAS, APPROVED, ENSEMBL, KINDS, PREVIOUS, Meaning, Named, Symbols

TABLE = Symbols.of(
    [
        Named("AARS", "AARS1", PREVIOUS),
        Named("ALARS", "AARS1", ALIAS),
        Named("ENSG00000090861", "AARS1", ENSEMBL),
        Named("KIAA1804", "MAP3K21", ALIAS),
        Named("QARS", "QARS1", PREVIOUS),
        Named("QARS", "EPRS1", PREVIOUS),
        Named("CAP", "CAP1", PREVIOUS),
        Named("CAP", "BRD4", ALIAS),
        Named("BRD4", "CAP1", ALIAS),
        Named("C1orf112", "FIRRM", PREVIOUS),
    ],
    "made up",
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AARS1", Meaning(("AARS1",), APPROVED)),
        ("AARS", Meaning(("AARS1",), PREVIOUS)),
        ("KIAA1804", Meaning(("MAP3K21",), ALIAS)),
        ("ENSG00000090861", Meaning(("AARS1",), ENSEMBL)),
        ("ENSG00000090861.14", Meaning(("AARS1",), ENSEMBL)),
        ("aars", Meaning(("AARS1",), PREVIOUS)),
        ("C1ORF112", Meaning(("FIRRM",), PREVIOUS)),
        ("QARS", Meaning(("QARS1", "EPRS1"), PREVIOUS)),
        ("CAP", Meaning(("CAP1",), PREVIOUS)),
        ("BRD4", Meaning(("BRD4",), APPROVED)),
        ("non-targeting", Meaning()),
    ],
)
def test_a_name_means_the_genes_that_it_is_the_best_kind_of_name_for(name, expected):
    assert TABLE.meaning(name) == expected


def test_names_of_a_gene_are_those_that_mean_it_alone_best_first():
    assert [one.name for one in TABLE.names_of("AARS1")] == ["AARS1", "ENSG00000090861", "AARS", "ALARS"]
    assert [one.name for one in TABLE.names_of("QARS1")] == ["QARS1"]
    assert [one.name for one in TABLE.names_of("CAP1")] == ["CAP1", "CAP"]
    assert list(TABLE.names_of("unheard of")) == []


NAMES = st.sampled_from([f"N{number}" for number in range(8)] + ["n0", "n1"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(Named, NAMES, NAMES, st.sampled_from(KINDS)), max_size=20))
def test_whatever_the_table_says_names_and_meanings_agree(named):
    symbols = Symbols.of(named, "drawn")
    for _, gene, _ in named:
        assert symbols.meaning(gene) == Meaning((gene,), APPROVED)
        for one in symbols.names_of(gene):
            assert symbols.meaning(one.name) == Meaning((gene,), one.kind)
    for name in {name for name, _, _ in named}:
        genes = {gene: KINDS.index(kind) for other, gene, kind in reversed(named) if other == name}
        assert set(symbols.meaning(name).genes) <= {*genes, name}


def test_large_tables_are_handled():
    symbols = Symbols.of((Named(f"A{number}", f"G{number // 50}", ALIAS) for number in range(100_000)), "large")
    assert symbols.meaning("A99999").gene == "G1999"
    assert sum(1 for _ in symbols.names_of("G7")) == 51
