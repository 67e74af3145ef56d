import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.errors import StateRagError
from state_rag.planning.signatures import given_signature, read_signature, target_of, tell_one_sided


def test_words_name_genes_and_directions():
    found = read_signature("MYC:+, HLA:A:-,TP53:0.5,KLF1:down", "--target")
    assert found == {"MYC": 1.0, "HLA:A": -1.0, "TP53": 0.5, "KLF1": -1.0}
    for words, says in (
        ("MYC:much", "'MYC:much' is no gene with a direction"),
        ("MYC:nan", "'MYC:nan' is no gene with a direction"),
        ("MYC:+,TP53", "'TP53' is no gene"),
        ("MYC:+,MYC:-", "MYC stands twice"),
        ("MYC", "neither a file nor a list"),
    ):
        with pytest.raises(StateRagError, match=says):
            read_signature(words, "--target")


@pytest.mark.parametrize(
    "text",
    [
        "gene,value\nA,1\nB,-2\n",
        "Gene,weight\nA,1\nB,-2\n",
        ",names,scores,log2FoldChange,padj\n0,A,9,1,.1\n1,B,9,-2,.1\n2,C,9,NA,.1\n".replace("scores", "other"),
        "gene\tlogFC\nA\t1\nB\t-2\n",
        "A,1\nB,-2\n",
        "anything,at all\nA,1\nB,-2\n",
    ],
)
def test_tables_of_usual_tools_are_read(tmp_path, text):
    path = tmp_path / "signature.csv"
    path.write_text(text)
    assert read_signature(path, "--target") == {"A": 1.0, "B": -2.0}


def test_the_columns_of_a_wide_table_are_told(tmp_path, caplog):
    path = tmp_path / "signature.csv"
    path.write_text("gene,logFC,score\nA,1,9\n")
    caplog.set_level("INFO")
    assert read_signature(path, "--target") == {"A": 1.0}
    assert "genes are from column 'gene', values from 'logfc'" in caplog.text


def test_rows_without_a_gene_or_a_value_are_left_out(tmp_path):
    path = tmp_path / "signature.csv"
    path.write_text("id,symbol,log2FoldChange\n1,A,1\n2,,5\n3,,6\n4,NA,7\n5,NA,8\n6,B,-2\n7,C,\n8,D,NA\n")
    assert read_signature(path, "--target") == {"A": 1.0, "B": -2.0}


def test_what_is_given_in_memory_is_checked_as_a_file_is():
    assert given_signature({"A": np.float32(1), "B": "-2"}, "target") == {"A": 1.0, "B": -2.0}
    assert np.isnan(given_signature(pd.Series({"A": 1.0, "B": np.nan}), "target")["B"])
    for values, says in (
        (pd.Series([1.0, 2.0], index=["A", "A"]), "target: A stands twice"),
        ({"A": "up"}, "target: the value of A is 'up', not a number"),
        ({"A": None}, "the value of A is None"),
        ({"A": np.inf}, "infinite"),
        ({}, "no gene with a value"),
        (np.ones(3), "target: genes have to be named.*not ndarray"),
    ):
        with pytest.raises(StateRagError, match=says):
            given_signature(values, "target")


def test_a_response_of_one_direction_is_told(caplog):
    tell_one_sided(np.array([1.0, -1.0, 2.0, 3.0]))
    tell_one_sided(np.array([1.0, 0.0, 0.0, 0.0]))
    tell_one_sided(np.array([1.0, np.nan, np.nan, np.nan]))
    assert not caplog.text
    tell_one_sided(np.array([-1.0, -2.0, np.nan, 0.0]))
    assert "The target moves 2 genes, all in one direction" in caplog.text


def test_ensembl_ids_are_those_without_their_version(tmp_path):
    path = tmp_path / "signature.csv"
    path.write_text("gene,logFC\nENSG00000141510.16,1\nENSG00000136997,-2\n")
    wanted = {"ENSG00000141510": 1.0, "ENSG00000136997": -2.0}
    assert read_signature(path, "--target") == wanted
    assert read_signature("ENSG00000141510.16:+,ENSG00000136997:-2", "--target") == wanted
    assert given_signature({"ENSG00000141510.16": 1, "ENSG00000136997": -2}, "target") == wanted
    path.write_text("gene,logFC\nENSG00000141510.16,1\nENSG00000141510.17,-2\n")
    with pytest.raises(StateRagError, match="ENSG00000141510 stands twice"):
        read_signature(path, "--target")


def test_tables_say_what_is_wrong_with_them(tmp_path):
    path = tmp_path / "signature.csv"
    for text, says in (
        ("gene,p,padj\nA,1,2\n", "expected a column of genes .* found gene, p, padj"),
        ("gene,value\nA,high\n", "the value of A is 'high', not a number"),
        ("gene,value\nA,1\nA,2\n", "A stands twice"),
        ("gene,value\nA,NA\n", "no gene with a value"),
        ("gene,value\nA,inf\n", "infinite"),
    ):
        path.write_text(text)
        with pytest.raises(StateRagError, match=says):
            read_signature(path, "--target")
    with pytest.raises(StateRagError, match="no such file"):
        read_signature(tmp_path / "signatures.csv", "--target")
    with pytest.raises(StateRagError, match="leave --row out"):
        read_signature(path, "--target", row="x")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_a_row_of_an_h5ad_file_is_a_signature(tmp_path, kind):
    values = np.array([[1.0, np.nan, 0.5], [0.0, 2.0, -1.0]])
    cells = anndata.AnnData(
        kind(values), obs=pd.DataFrame(index=["X in a", "Y in a"]), var=pd.DataFrame(index=["A", "B", "C"])
    )
    cells.write_h5ad(tmp_path / "two.h5ad")
    cells[1].copy().write_h5ad(tmp_path / "one.h5ad")
    assert read_signature(tmp_path / "one.h5ad", "--target") == {"A": 0.0, "B": 2.0, "C": -1.0}
    assert read_signature(tmp_path / "two.h5ad", "--target", "X in a") == {"A": 1.0, "C": 0.5}
    with pytest.raises(StateRagError, match="has 2 rows.*--row, of X in a, Y in a"):
        read_signature(tmp_path / "two.h5ad", "--target")
    with pytest.raises(StateRagError, match="no row 'Y in b'; close spellings: Y in b -> Y in a"):
        read_signature(tmp_path / "two.h5ad", "--target", "Y in b")


def test_genes_that_are_not_named_are_unknown_where_most_are_and_unchanged_where_few_are(caplog):
    genes = ["A", "B", "C", "D"]
    np.testing.assert_array_equal(target_of(genes, {"A": 1.0, "C": -2.0}), [1, np.nan, -2, np.nan])
    np.testing.assert_array_equal(target_of(genes, {"A": 1.0}), [1, 0, 0, 0])
    np.testing.assert_array_equal(target_of(genes, {"A": 1.0}, reverse=True), [-1, 0, 0, 0])
    np.testing.assert_array_equal(target_of(genes, {"A": 1.0}, unlisted="unknown"), [1, np.nan, np.nan, np.nan])
    with pytest.raises(StateRagError, match="unchanged or unknown, not 'both'"):
        target_of(genes, {"A": 1.0}, unlisted="both")


def test_genes_that_the_run_lacks_are_named_and_none_is_an_error(caplog):
    genes = ["MYC", "TP53"]
    target_of(genes, {"MYC": 1.0, "TP63": 1.0})
    assert "1 of 2 genes are not among the run's, and left out: TP63; close spellings: TP63 -> TP53" in caplog.text
    with pytest.raises(StateRagError, match="none of the 1 genes.*myc -> MYC.*such as MYC, TP53"):
        target_of(genes, {"myc": 1.0})


def test_the_names_of_rows_are_genes_as_r_writes_them(tmp_path):
    path = tmp_path / "deseq.csv"
    path.write_text('"","baseMean","log2FoldChange","padj"\n"A",10,1.5,0.01\n"B",12,-2,0.2\n')
    assert read_signature(path, "--target") == {"A": 1.5, "B": -2.0}
