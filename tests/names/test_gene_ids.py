"""Ensembl ids with a version: the same gene as without, wherever names are matched."""

import anndata
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.contract.feature_names import gene_names
from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.screen_table import read_screen_table
from state_rag.datasets.splitting.label_spelling import alike_labels
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.sources import read_source
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.errors import StateRagError
from state_rag.names.gene_ids import unversioned, unversioned_genes
from state_rag.names.symbols import ENSEMBL, Named, Symbols
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings
from state_rag.upstream.further_sources import with_further
from state_rag.upstream.knowledge_source import knowledge_of, load_sources

IDS = [f"ENSG{number:011d}" for number in range(1, 31)]
TABLES = ["csv", "npz", "parquet", "json", "gmt", "edges", "npy"]


def versioned(names, version):
    return [f"{name}.{version}" if name.startswith("ENS") else name for name in names]


def test_versions_are_taken_off_and_two_of_one_gene_are_refused():
    assert unversioned_genes([*versioned(IDS[:2], 3), "TP53", "MT-1.2"]) == [*IDS[:2], "TP53", "MT-1.2"]
    assert unversioned("ENSMUSG00000059552.14") == "ENSMUSG00000059552"
    assert unversioned("ENST00000269305.9") == "ENST00000269305.9"  # a transcript is no gene
    with pytest.raises(StateRagError, match=rf"1 genes have columns in two versions \({IDS[0]}.3 and {IDS[0]}.4\)"):
        unversioned_genes([f"{IDS[0]}.3", f"{IDS[0]}.4"])
    with pytest.raises(StateRagError, match="in two versions"):
        unversioned_genes([IDS[0], f"{IDS[0]}.4"])


def test_columns_are_called_without_versions_wherever_they_stand():
    assert gene_names(pd.DataFrame(index=versioned(IDS, 7))) == IDS
    assert gene_names(pd.DataFrame({"gene_name": versioned(IDS, 7)}, index=range(30))) == IDS
    assert gene_names(pd.DataFrame({"gene_name": ["A"] * 30}, index=versioned(IDS, 7))) == IDS


def test_a_table_of_names_with_versions_and_a_question_in_another_are_one_gene():
    symbols = Symbols.of([Named("ENSG00000000001.5", "TP53", ENSEMBL)], "example")
    for name in ("ENSG00000000001", "ENSG00000000001.9"):
        assert symbols.meaning(name).gene == "TP53"


def write_source(path, names):
    rows = np.random.default_rng(0).normal(size=(len(names), 4)).round(3).astype(np.float32)
    if path.suffix == ".csv":
        pd.DataFrame(rows, index=names).to_csv(path)
    elif path.suffix == ".npz":
        np.savez(path, names=np.array(names), embeddings=rows)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows, index=names).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text("{" + ", ".join(f'"{n}": {row.tolist()}' for n, row in zip(names, rows, strict=True)) + "}")
    elif path.suffix == ".npy":
        np.save(path, rows)
        path.with_name(f"{path.stem}.names.txt").write_text("\n".join(names))
    elif path.suffix == ".gmt":
        path.write_text("".join(f"s{n}\t\t" + "\t".join(names[n : n + 3]) + "\n" for n in range(len(names) - 2)))
    else:
        path.write_text("".join(f"{one}\t{other}\t0.5\n" for one, other in zip(names, names[1:], strict=False)))
    return path


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize(("asked", "has"), [("", ".5"), (".5", ""), (".5", ".6")])
def test_every_source_knows_a_gene_by_its_id_in_any_version(tmp_path, ending, asked, has):
    path = write_source(tmp_path / f"in.{ending}", [f"{name}{has}" for name in IDS[:6]])
    names = [f"{name}{asked}" for name in IDS[:6]]
    same = read_source(write_source(tmp_path / f"same.{ending}", names), names).table
    found = read_source(path, [*names, "TP53"]).table
    assert found.names == tuple(names)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, same.vectors @ same.vectors.T, atol=1e-5)


def test_a_table_with_two_versions_of_what_is_asked_for_in_a_third_is_refused(tmp_path):
    path = write_source(tmp_path / "two.csv", [f"{IDS[0]}.1", f"{IDS[0]}.2", IDS[1]])
    with pytest.raises(StateRagError, match=rf"has {IDS[0]}.3 in several versions \({IDS[0]}.1, {IDS[0]}.2\)"):
        read_embeddings(path, [f"{IDS[0]}.3"])
    assert read_embeddings(path, [f"{IDS[0]}.2", IDS[1]]).names == (f"{IDS[0]}.2", IDS[1])


def test_perturbations_in_two_versions_are_told():
    assert alike_labels([f"{IDS[0]}.1", f"{IDS[0]}.2", IDS[1]]) == [(f"{IDS[0]}.1", f"{IDS[0]}.2")]


def test_a_network_takes_a_question_in_another_version_for_what_it_knows(tmp_path):
    path = write_source(tmp_path / "in.csv", versioned(IDS, 2))
    settings = RagSettings(use_genept=True, genept_path=str(path))
    knowledge = knowledge_of({"text": load_sources(settings, versioned(IDS[:6], 1))["text"].table})
    assert isinstance(knowledge, Knowledge)
    more = with_further(knowledge, {f"{IDS[0]}.9", f"{IDS[8]}.9"}, settings)
    assert more.names == (*versioned(IDS[:6], 1), f"{IDS[8]}.9")
    assert more.index_of([f"{IDS[0]}.9"]).tolist() == [0]


def screen(folder, name, version, perturbations=None, seed=0):
    cells = sr.datasets.screen(n_perturbations=8, n_genes=30, cells_per_condition=6, controls_per_line=12, seed=seed)
    names = sorted(set(cells.obs["gene"]) - {"non-targeting"})
    labels = dict(zip(names, versioned(IDS, version if perturbations is None else perturbations), strict=False))
    cells.obs["gene"] = pd.Categorical([labels.get(one, one) for one in cells.obs["gene"]])
    cells.var = pd.DataFrame(index=versioned(IDS, version))
    cells.obsm.clear()
    cells.uns.pop("hvg_names", None)
    cells.write_h5ad(folder / name)
    return folder / name


def test_a_fit_finds_own_genes_and_is_asked_in_another_version(tmp_path):
    path = screen(tmp_path, "a.h5ad", 4, perturbations=7)
    fit(path, tmp_path / "run", embed_key=None, output_space="all", progress=False)
    run = read_run(tmp_path / "run")
    assert list(run.engine.responses.genes) == IDS
    bank = run.engine.bank
    assert bank.own_gene.tolist() == [IDS.index(unversioned(name)) for name in bank.names]
    for asked in (IDS[2], f"{IDS[2]}.7", f"{IDS[2]}.8"):
        assert run.own_name(asked) == f"{IDS[2]}.7"
    one, other = (run.engine.predict("rpe1", [name], trust=False).mean for name in (f"{IDS[2]}.7", f"{IDS[2]}.11"))
    np.testing.assert_array_equal(one, other)


def test_files_of_two_releases_have_the_same_genes(tmp_path):
    first = screen(tmp_path, "a.h5ad", 4, perturbations=7)
    screen(tmp_path, "b.h5ad", 5, perturbations=7, seed=1)
    assert len(read_screen_table(tmp_path / "*.h5ad").perturbations) == 8
    found = sr.effects.read([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], progress=False)
    assert list(found.var_names) == IDS
    other = anndata.read_h5ad(tmp_path / "b.h5ad")[:, ::-1].copy()
    other.write_h5ad(tmp_path / "c.h5ad")
    done = prepare(tmp_path / "c.h5ad", tmp_path / "d.h5ad", like=[first])
    assert anndata.read_h5ad(done.path).var_names.tolist() == versioned(IDS, 5)
