import shutil

import anndata as ad
import numpy as np
import pytest

import state_rag as sr
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.engine.adding import add
from state_rag.engine.effects import predicted_effects
from state_rag.engine.explaining.explain import explain
from state_rag.engine.fitting import fit
from state_rag.engine.folder import EvidenceRun, read_run
from state_rag.engine.further import knowing, tell_unknown, with_files
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.planning.design import design_run
from tests.engine.runs import QUICK, SIZES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run on the effects of all perturbations but two, those two, and all effects."""
    folder = tmp_path_factory.mktemp("further")
    screen = simulate_screen(folder, seed=2, **SIZES)
    effects = sr.effects.from_anndata(ad.read_h5ad(screen.h5ad), matrix="obsm/X_hvg")
    names = effects.obs["perturbation"].astype(str).to_numpy()
    new = sorted(set(names) & set(sr.embeddings.read(screen.embeddings).names))[:2]
    sr.effects.write(effects[~np.isin(names, new)].copy(), folder / "effects.h5ad")
    shutil.copy(screen.embeddings, folder / "table.safetensors")
    fit(
        folder / "effects.h5ad", folder / "run", embeddings=folder / "table.safetensors", settings=QUICK, progress=False
    )
    return folder, new, effects


def test_a_perturbation_of_no_response_is_known_by_the_table_that_the_run_was_fitted_with(made):
    folder, new, _ = made
    run = read_run(folder / "run")
    assert all(run.engine.bank.number_of(name) < 0 for name in new)
    found = predicted_effects(run, ["hepg2"], new)
    assert found.obs["use"].tolist() == ["unseen", "unseen"]
    assert (found.obs["neighbours"] != "").all()
    assert not found.obs["trust_reason"].str.contains("nothing is known").any()
    assert explain(run, new[0], "hepg2").perturbation == new[0]
    assert new[0] in {name for _, name in design_run(run, ["hepg2"], 2, candidates=new, new_context=True).conditions}


def test_a_combination_with_a_member_that_nothing_is_known_of_is_said_to_go_by_the_other(made, caplog):
    run = read_run(made[0] / "run")
    one, other = run.engine.responses.perturbation_names[:2]
    predicted_effects(run, ["hepg2"], [f"{one}+{other}"])
    assert "nothing is known of" not in caplog.text
    predicted_effects(run, ["hepg2"], [f"{one}+{other.lower()}"])
    assert f"nothing is known of {other.lower()}, so it goes by what is left" in caplog.text
    assert f"{other.lower()} -> {other}" in caplog.text


def test_what_was_known_is_predicted_as_before(made):
    folder, new, _ = made
    run = read_run(folder / "run")
    names = run.engine.responses.perturbation_names
    before, after = (one.engine.predict("hepg2", names).mean for one in (run, knowing(run, new)))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_new_measurements_of_it_keep_what_the_table_says(made, tmp_path):
    folder, new, effects = made
    rows = (effects.obs["perturbation"] == new[0]).to_numpy() & (effects.obs["context"] == "rpe1").to_numpy()
    sr.effects.write(effects[rows].copy(), tmp_path / "new.h5ad")
    found = add(read_run(folder / "run"), tmp_path / "new.h5ad", progress=False).run
    assert set(found.engine.predict("hepg2", [new[0]]).sources[0]) == {"text", "responses"}
    again = EvidenceRun(Evidence.from_state(found.engine.to_state()), found.config, found.identity, found.names)
    assert np.array_equal(again.engine.predict("k562", new[:1]).mean, found.engine.predict("k562", new[:1]).mean)


def test_a_table_that_is_gone_is_said_and_the_name_stays_unknown(made, tmp_path, caplog):
    folder, new, _ = made
    run = read_run(folder / "run")
    moved = {**run.config, "sources": {"text": {**run.config["sources"]["text"], "file": str(tmp_path / "no.npz")}}}
    with pytest.raises(StateRagError, match=f"nothing is known of {new[0]}"):
        predicted_effects(EvidenceRun(run.engine, moved, None), ["hepg2"], new)
    assert "no.npz, which source text was read from, is not there any more" in caplog.text


def test_a_table_that_changed_is_said_and_not_used(made, tmp_path, caplog):
    folder, new, _ = made
    run = read_run(folder / "run")
    table = sr.embeddings.read(folder / "table.safetensors")
    changed = tmp_path / "changed.npz"
    np.savez(changed, names=np.array(table.names), vectors=table.vectors[::-1])
    other = {**run.config, "sources": {"text": {**run.config["sources"]["text"], "file": str(changed)}}}
    found = knowing(EvidenceRun(run.engine, other, None), new)
    assert all(found.engine.bank.number_of(name) < 0 for name in new)
    assert "tells something else" in caplog.text


def test_a_file_that_moved_is_named_by_its_source(made, tmp_path):
    folder, new, _ = made
    run = read_run(folder / "run")
    gone = {"text": {**run.config["sources"]["text"], "file": str(tmp_path / "no.npz")}}
    run = EvidenceRun(run.engine, {**run.config, "sources": gone}, None)
    assert with_files(run, {}) is run
    found = knowing(with_files(run, {"text": folder / "table.safetensors"}), new)
    assert all(found.engine.bank.number_of(name) >= 0 for name in new)
    with pytest.raises(StateRagError, match=r"go=x\.gmt: the run has no such source; it has text"):
        with_files(run, {"go": "x.gmt"})
    with pytest.raises(StateRagError, match=r"text=x\.npz: the file does not exist"):
        with_files(run, {"text": "x.npz"})


def test_an_engine_in_a_network_knows_what_the_table_of_the_network_knows(made):
    folder, new, _ = made
    run = read_run(folder / "run")
    network = {"training": {"genept_path": str(folder / "table.safetensors"), "rag_evidence": "predict"}}
    found = knowing(EvidenceRun(run.engine, network, None), new)
    assert all(found.engine.bank.number_of(name) >= 0 for name in new)


def test_that_nothing_is_known_of_a_perturbation_is_said(made, caplog):
    run = read_run(made[0] / "run")
    with caplog.at_level("WARNING", logger="state_rag"):
        tell_unknown(run, run.engine.responses.perturbation_names)
        assert not caplog.text
        tell_unknown(run, ["NOBODY", "NOBODY"])
    assert "Nothing is known of NOBODY" in caplog.text
    assert "mean effect of the cell line is predicted for it" in caplog.text
