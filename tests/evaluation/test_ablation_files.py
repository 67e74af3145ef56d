import json

import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation.ablation import ablation_table, summarise
from state_rag.evaluation.ablation_files import load_ablation, save_ablation
from tests.evaluation.test_ablation import ablated

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
    with pytest.raises(StateRagError, match="no column 'help'"):
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
