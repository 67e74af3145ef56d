import pandas as pd
import pytest

from state_rag.analysis.ablation import ALL, ablation_table
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.upstream.ablation.ablate import ablate_run, made_with


@pytest.mark.slow
def test_a_trained_run_is_ablated_from_its_checkpoint(ptrag, project):
    parts = read_split(project.split).fewshot.values()
    tested = sorted(name for part in parts for name in part["test"])
    done = ablate_run(ptrag / "ptrag", tested[:2], progress=False)
    assert [(one.cell_line, one.perturbation) for one in done] == [("hepg2", name) for name in tested[:2]]
    table = ablation_table(done)
    assert len(table) == 2 * (8 + 1)
    assert set(table["cells"]) == {16}
    assert (table.loc[table["neighbour"] == ALL, "change"] > 0).all()
    again = ablation_table(ablate_run(ptrag / "ptrag", tested[:2], progress=False))
    pd.testing.assert_frame_equal(table, again)
    few = ablate_run(ptrag / "ptrag", at_most=3, progress=False)
    assert len(few) == 3
    alone = ablation_table(ablate_run(ptrag / "ptrag", [few[2].perturbation], progress=False))
    pd.testing.assert_frame_equal(alone, ablation_table(few[2:]), check_exact=True)
    with pytest.raises(StateRagError, match=f"--gene {tested[0].lower()}: .*close spellings: .* -> {tested[0]}"):
        ablate_run(ptrag / "ptrag", [tested[0].lower()], progress=False)
    with pytest.raises(StateRagError, match="--ablate-at-most 0"):
        ablate_run(ptrag / "ptrag", at_most=0, progress=False)
    with pytest.raises(StateRagError, match="--gene NOSUCH: not among the .* test perturbations"):
        ablate_run(ptrag / "ptrag", ["NOSUCH"], progress=False)


@pytest.mark.slow
def test_what_ablations_depend_on_is_told_by_content_so_that_a_run_may_move(ptrag, run_copy, project, tmp_path):
    here, there = made_with(ptrag / "ptrag"), made_with(run_copy)
    assert here == there
    toml = tmp_path / "other.toml"
    toml.write_text(project.split.read_text() + "# another\n")
    other = made_with(run_copy, toml=str(toml))
    assert {key for key in here if here[key] != other[key]} == {"split file"}


def test_a_run_without_retrieval_has_no_neighbours_to_switch_off(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {kwargs: {}}\ntraining: {use_genept: true}\n")
    with pytest.raises(StateRagError, match="does not retrieve"):
        ablate_run(tmp_path)
