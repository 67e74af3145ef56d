import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.cli import main
from state_rag.datasets.quickstart.plan import plan
from state_rag.datasets.quickstart.script import hydra_value, script
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes cells and returns the path; no embeddings are at the usual places."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_RAG_GENEPT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def save(adata, name="cells.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return save


def found(place, **said):
    made = plan(place, **said)
    return made.perturbation.value, made.control.value, made.line.value, made.batch.value


def test_usual_names_are_found(write):
    assert found(write(make_adata())) == ("perturbation", "ctrl", "cell_type", "batch")


def test_what_is_found_does_not_depend_on_how_columns_and_values_are_stored(write):
    usual = make_adata()
    plain = usual.copy()
    for column in plain.obs:
        plain.obs[column] = plain.obs[column].astype(str)
    plain.X = plain.X.toarray()
    assert found(write(usual, "a.h5ad")) == found(write(plain, "b.h5ad"))


def test_names_that_nobody_else_uses_are_found_among_many_columns(write):
    cells = make_adata()
    renames = {"perturbation": "target gene", "cell_type": "CellLine.name", "batch": "10x lane"}
    cells.obs = cells.obs.rename(columns=renames)
    rng = np.random.default_rng(0)
    for number in range(45):
        cells.obs[f"score_{number}"] = rng.normal(size=cells.n_obs)
    place = write(cells)
    assert found(place) == ("target gene", "ctrl", "CellLine.name", "10x lane")
    text = script(plan(place))
    assert "--pert-col 'target gene'" in text
    assert "--cell-type-key CellLine.name" in text


def test_a_name_with_a_line_break_stays_within_the_comments(write):
    cells = make_adata()
    cells.obs["cell_line\nrm -r x"] = cells.obs["cell_type"].astype(str) + "\nrm"
    findings = script(plan(write(cells))).partition("\n\n")[0]
    assert all(line.startswith("#") for line in findings.splitlines())


@pytest.mark.parametrize("control", ["NT", "DMSO", "Vehicle", "non_targeting", "CTRL", "neg-ctrl"])
def test_controls_in_any_spelling(write, control):
    cells = make_adata()
    cells.obs["perturbation"] = cells.obs["perturbation"].cat.rename_categories({"ctrl": control})
    assert found(write(cells))[1] == control


def test_without_a_control_the_place_and_the_option_are_shown(write):
    cells = make_adata()
    cells.obs["perturbation"] = cells.obs["perturbation"].cat.rename_categories({"ctrl": "XYZ1"})
    text = script(plan(write(cells)))
    assert "--control CONTROL" in text
    assert "name it with --control" in text
    assert "--control XYZ1" in script(plan(write(cells), control="XYZ1"))


def test_without_any_label_every_part_is_a_place_to_fill(write):
    bare = ad.AnnData(np.ones((6, 3), np.float32), obs=pd.DataFrame(index=list("abcdef")))
    text = script(plan(write(bare)))
    assert "PERTURBATION_COLUMN" in text
    assert "name it with --pert-col" in text


def test_one_context_holds_perturbations_out(write):
    cells = make_adata()
    one = cells[cells.obs["cell_type"] == "k562"].copy()
    made = plan(write(one))
    assert made.single_line
    assert made.held_out == "k562"
    text = script(made)
    assert "--held-out-perturbations 0.2 -o split_perturbations.toml" in text
    assert "--held-out k562" not in text
    assert "several at once" not in text


def test_pairs_of_perturbations_are_told(write):
    cells = make_adata()
    cells.obs["perturbation"] = cells.obs["perturbation"].cat.rename_categories({"WARS": "AARS+KARS"})
    text = script(plan(write(cells)))
    assert "1 of 4 perturbations are several at once (AARS+KARS)" in text
    assert "--held-out-pairs both-seen|one-seen|none-seen|any" in " ".join(text.replace("#", "").split())


def test_pairs_whose_members_have_embeddings_have_them_too(write, tmp_path):
    cells = make_adata()
    cells.obs["perturbation"] = cells.obs["perturbation"].cat.rename_categories({"WARS": "AARS+KARS"})
    np.savez(tmp_path / "known.npz", **{name: np.ones(4) for name in ("AARS", "KARS")})
    text = " ".join(script(plan(write(cells)), str(tmp_path / "known.npz")).replace("#", "").split())
    assert "has no embedding for 1 of 4 perturbations (RPL3)" in text


def test_counts_are_told_from_log_normalised_values_and_prepared(write):
    assert "is counts" in script(plan(write(make_adata(counts=True)))) or plan(write(make_adata(counts=True))).prepare
    ready = make_adata()
    ready.obsm["X_hvg"] = ready.X.toarray().astype(np.float32)
    made = plan(write(ready))
    assert not made.prepare
    assert "data prepare" not in script(made)
    assert "data.kwargs.embed_key" not in script(made)


def test_perturbations_that_are_genes_ask_for_genept_and_drugs_for_texts(write):
    genes = script(plan(write(make_adata())))
    assert "GenePT_gene_embedding_ada_text.pickle" in genes
    drugs = make_adata()
    names = {"AARS": "imatinib 1.0uM", "KARS": "sirolimus 0.1uM", "WARS": "dasatinib 5uM", "RPL3": "bosutinib 5uM"}
    drugs.obs["perturbation"] = drugs.obs["perturbation"].cat.rename_categories(names)
    assert "embeddings build" in script(plan(write(drugs)))


def test_numbers_as_labels_are_prepared(write):
    cells = make_adata()
    cells.obs["perturbation"] = np.arange(cells.n_obs) % 4
    made = plan(write(cells), pert_col="perturbation")
    assert any("stored as numbers" in reason for reason in made.prepare)


def test_the_matrix_is_not_loaded(write):
    wide = sparse.random(50, 200_000, density=1e-4, format="csr", dtype=np.float32, rng=0)
    cells = make_adata(n_cells=50)
    made = plan(write(ad.AnnData(wide, obs=cells.obs)))
    assert made.look.n_genes == 200_000


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"pert_col": "perturbatoin"}, "--pert-col perturbatoin: no such obs column.*close spellings.*perturbation"),
        ({"control": "DMSO"}, "--control DMSO: no such label.*There are: AARS"),
        ({"held_out": "hela"}, "--held-out hela: no such label.*a549"),
    ],
)
def test_what_the_user_says_must_be_there(write, said, message):
    with pytest.raises(StateRagError, match=message):
        plan(write(make_adata()), **said)


def test_perturbations_without_an_embedding_are_named_among_the_findings(write, tmp_path):
    (tmp_path / "mine.csv").write_text("AARS,1,2\nKARS,2,1\n")
    text = script(plan(write(make_adata())), str(tmp_path / "mine.csv"))
    findings, _, commands = text.partition("\n\n")
    assert "# NOTE: mine.csv has no embedding for" in findings
    assert "embeddings convert" in commands


@pytest.mark.parametrize("content", [b"", bytes(range(256))], ids=["empty", "binary"])
def test_embeddings_that_are_named_and_cannot_be_read_are_refused(write, tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(StateRagError, match="mine.npz"):
        script(plan(write(make_adata())), str(tmp_path / "mine.npz"))


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "0", "true", "a,b", "x=1", "${y}", "end\\", "T.cell 1"])
def test_a_value_passes_hydra_unchanged(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    (parsed,) = OverridesParser.create().parse_overrides([f"key={hydra_value(value)}"])
    assert OmegaConf.create({"key": parsed.value()})["key"] == value


def test_the_command_prints_a_script_and_writes_nothing(write, capsys, tmp_path):
    place = write(make_adata())
    before = sorted(tmp_path.iterdir())
    assert main(["quickstart", str(place)]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/sh -e\n")
    assert sorted(tmp_path.iterdir()) == before


def effects(n_perturbations=5):
    """A table of effects in two lines, the first perturbation in one of them only."""
    pairs = [(f"G{number}", line) for number in range(n_perturbations) for line in ("k562", "rpe1")][1:]
    obs = pd.DataFrame(pairs, columns=["perturbation", "context"]).rename(index=str)
    values = np.random.default_rng(0).normal(size=(len(pairs), 7)).astype(np.float32)
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"gene{number}" for number in range(7)]))


def test_a_table_of_effects_is_told_and_gets_the_commands_of_the_engine_alone(write):
    place = write(effects(), "effects.h5ad")
    text = " ".join(script(plan(place)).replace("\n#", "").split())
    assert "a table of effects, 9 conditions (a row each) x 7 genes" in text
    assert f"state-rag evidence fit {place} -o runs/evidence" in text
    assert "state-rag evidence predict runs/evidence --context k562" in text  # where a condition is missing
    assert not [part for part in ("data split", "state tx", "evaluate") if part in text]
    assert "--context rpe1" in script(plan(place, held_out="rpe1"))
    with pytest.raises(StateRagError, match=r"--held-out rpe.*close spellings: rpe -> rpe1"):
        plan(place, held_out="rpe")


def test_effects_without_a_sign_are_remarked(write):
    table = effects()
    assert "no value is below zero" not in script(plan(write(table)))
    table.X = np.abs(table.X)
    assert "no value is below zero" in " ".join(script(plan(write(table))).replace("#", "").split())


def test_cells_in_columns_of_the_same_names_are_cells(write):
    cells = effects()
    cells.obs.loc["0", "perturbation"] = "non-targeting"
    assert not plan(write(cells)).effects
    twice = ad.concat([effects(), effects()], index_unique="-")
    assert not plan(write(twice)).effects


@pytest.mark.parametrize(
    "command",
    [
        ["data", "split", "effects.h5ad", "--held-out", "k562"],
        ["data", "split", "effects.h5ad", "--held-out-perturbations", ".4"],
        ["data", "prepare", "effects.h5ad"],
        ["data", "check", "split.toml"],
        ["evidence", "fit", "split.toml", "-o", "run"],
    ],
)
def test_commands_on_cells_refuse_a_table_of_effects_and_name_the_one_that_takes_it(write, command, tmp_path, capsys):
    write(effects(), "effects.h5ad")
    (tmp_path / "split.toml").write_text(
        f'[datasets]\nscreen = "{tmp_path}/effects.h5ad"\n[training]\nscreen = "train"\n'
    )
    assert main(command)
    said = capsys.readouterr().err
    assert "a table of effects" in said
    assert "effects.h5ad -o runs/evidence`" in said
    assert not (tmp_path / "run").exists()
