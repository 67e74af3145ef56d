import json

import numpy as np
import pandas as pd
import pytest

from state_rag.analysis.ablation import ablation_table, summarise
from state_rag.analysis.ablation_files import ablation_of, load_ablation, save_ablation
from state_rag.errors import StateRagError
from state_rag.evaluation.runs import Run
from state_rag.files import sample_digest
from tests.analysis.test_ablation import ablated

SAME = {"checkpoint": "abc", "split file": "def"}


def conditions(*names, seed=0):
    return ablation_table([ablated(name, seed=seed) for name in names])


def test_what_was_written_is_read_back_and_other_files_are_refused(tmp_path):
    table = conditions("P")
    save_ablation(table, tmp_path)
    read = load_ablation(tmp_path)
    assert summarise(read)["conditions"] == 1
    np.testing.assert_allclose(read["help"], table["help"], rtol=1e-4, atol=1e-6)
    assert load_ablation(tmp_path / "elsewhere") is None
    (tmp_path / "ablation.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StateRagError, match="no column 'cell_line'"):
        load_ablation(tmp_path)
    (tmp_path / "ablation.csv").write_text("")
    with pytest.raises(StateRagError, match="cannot be read"):
        load_ablation(tmp_path)


def test_conditions_of_an_earlier_command_stay_and_equal_ones_are_replaced(tmp_path):
    save_ablation(conditions("P", "Q"), tmp_path, [SAME])
    newer = conditions("Q", "R", seed=1)
    whole, remark = save_ablation(newer, tmp_path, [SAME])
    assert remark == "Kept in ablation.csv from before, same checkpoint and settings: P in a."
    read = load_ablation(tmp_path)
    assert read["perturbation"].drop_duplicates().tolist() == ["P", "Q", "R"]
    assert len(read) == len(whole) == 3 * 5
    for name in ("Q", "R"):
        there, here = (table[table["perturbation"] == name]["help"] for table in (read, newer))
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)
    assert json.loads((tmp_path / "ablation.json").read_text())["conditions"] == 3


def test_what_is_kept_is_kept_to_the_digit(tmp_path):
    save_ablation(conditions("P"), tmp_path, [SAME])
    before = load_ablation(tmp_path)
    save_ablation(conditions("Q"), tmp_path, [SAME])
    after = load_ablation(tmp_path)
    pd.testing.assert_frame_equal(before, after[after["perturbation"] == "P"])


def test_everything_replaced_is_nothing_kept(tmp_path):
    save_ablation(conditions("P"), tmp_path, [SAME])
    assert save_ablation(conditions("P"), tmp_path, [SAME])[1] == ""


def test_another_checkpoint_starts_anew_and_says_so(tmp_path):
    save_ablation(conditions("P"), tmp_path, [SAME])
    whole, remark = save_ablation(conditions("Q"), tmp_path, [{**SAME, "checkpoint": "xyz"}])
    assert set(whole["perturbation"]) == {"Q"}
    assert remark == "ablation.csv starts anew: the one there was made with another checkpoint."
    assert save_ablation(conditions("Q"), tmp_path, [SAME, SAME])[1].endswith("with another number of runs.")


def test_a_table_that_does_not_say_how_it_was_made_is_not_added_to(tmp_path):
    save_ablation(conditions("P"), tmp_path, [SAME])
    (tmp_path / "ablation.json").write_text("{}")
    whole, remark = save_ablation(conditions("Q"), tmp_path, [SAME])
    assert set(whole["perturbation"]) == {"Q"}
    assert "does not say what it was made with" in remark


def test_a_perturbation_called_na_is_a_name(tmp_path):
    save_ablation(conditions("NA"), tmp_path, [SAME])
    assert set(load_ablation(tmp_path)["perturbation"]) == {"NA"}


@pytest.fixture
def made(tmp_path):
    """Two runs, each with a checkpoint and a split file, and what an ablation of them is made with."""
    runs, made_with = {}, {}
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "eval_last.ckpt/retrieval").mkdir(parents=True)
        (folder / "checkpoints/last.ckpt").write_text(f"weights of {name}")
        (folder / "split.toml").write_text(f"split of {name}")
        config = {"data": {"kwargs": {"toml_config_path": str(folder / "split.toml")}}}
        runs[name] = Run(folder, folder / "eval_last.ckpt", config)
        digests = sample_digest(folder / "checkpoints/last.ckpt"), sample_digest(folder / "split.toml")
        made_with[name] = dict(zip(("checkpoint", "split file"), digests, strict=True))
    return runs, made_with, {"one": {("a", "P")}, "two": {("a", "Q")}}


def test_an_ablation_of_the_run_as_it_is_needs_no_remark(made):
    runs, made_with, conditions_of = made
    assert ablation_of("one", runs, conditions_of) is None
    save_ablation(conditions("P"), runs["one"].predictions / "retrieval", [made_with["one"]])
    found = ablation_of("one", runs, conditions_of)
    assert (found.runs, found.remarks, len(found.table)) == (("one",), (), 5)


def test_an_ablation_of_another_checkpoint_is_left_out_and_says_so(made):
    runs, made_with, conditions_of = made
    save_ablation(conditions("P"), runs["one"].predictions / "retrieval", [made_with["one"]])
    (runs["one"].folder / "checkpoints/last.ckpt").write_text("trained on")
    found = ablation_of("one", runs, conditions_of)
    assert found.table is None
    assert found.remarks[0].startswith("Left out: it was made with another last.ckpt than the one that is there now.")


def test_what_cannot_be_checked_or_has_another_split_is_shown_with_a_remark(made):
    runs, made_with, conditions_of = made
    one, folder = runs["one"], runs["one"].predictions / "retrieval"
    save_ablation(conditions("P"), folder, [made_with["one"]])
    (one.folder / "split.toml").write_text("another")
    found = ablation_of("one", runs, conditions_of)
    assert "made with another split file" in found.remarks[0]
    (one.folder / "checkpoints/last.ckpt").unlink()
    assert "there is no checkpoint" in ablation_of("one", runs, conditions_of).remarks[0]
    (folder / "ablation.json").write_text("{}")
    found = ablation_of("one", runs, conditions_of)
    assert "does not say which checkpoint" in found.remarks[0]
    assert found.table is not None


def test_an_ablation_of_several_runs_names_those_that_are_there_and_drops_the_others(made):
    runs, made_with, conditions_of = made
    save_ablation(conditions("P", "Q"), runs["one"].predictions / "retrieval", list(made_with.values()))
    both = ablation_of("one", runs, conditions_of)
    assert (both.runs, both.remarks, len(both.table)) == (("one", "two"), (), 10)
    alone = ablation_of("one", {"one": runs["one"]}, conditions_of)
    assert alone.runs == ("one",)
    assert set(alone.table["perturbation"]) == {"P"}
    assert alone.remarks == ("Left out: conditions of runs that are not in this report, or have changed since.",)


def test_a_damaged_table_is_a_remark(made):
    runs, _, conditions_of = made
    (runs["one"].predictions / "retrieval/ablation.csv").write_text("a\n1\n")
    found = ablation_of("one", runs, conditions_of)
    assert found.table is None
    assert "no column" in found.remarks[0]
