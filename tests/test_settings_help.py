import re
import subprocess
import sys

import pytest

from state_rag.cli import main
from state_rag.errors import StateRagError
from state_rag.settings import CONTRADICTIONS, FLAGS, RagSettings
from state_rag.settings_help import help_text, markdown_table, preset_names, preset_values, presets


def test_every_flag_is_explained_with_its_default_and_what_it_takes():
    text = help_text()
    for name, known in FLAGS.items():
        assert f"training.{name}\n" in text
        (block,) = (part for part in text.split("\n\n") if part.startswith(f"training.{name}\n"))
        words = " ".join(block.split())
        assert known.help in words
        assert f"takes {known.takes}; default: " in words


def test_what_a_flag_needs_is_said_beside_it():
    words = " ".join(help_text(["gumbel_sparsity_loss"]).split())
    assert "needs training.differentiable_rag=true" in words
    assert len(CONTRADICTIONS) > 3


def test_some_flags_can_be_asked_for_with_or_without_their_section():
    assert help_text(["training.topk_rag"]) == help_text(["topk_rag"])
    assert help_text(["topk_rag"]).count("training.") == 1


def test_the_table_has_a_row_for_every_flag_and_five_columns():
    rows = markdown_table().splitlines()
    assert [re.match(r"\| `(\w+)`", row)[1] for row in rows[2:]] == list(FLAGS)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_presets_are_the_files_and_their_values_are_shown():
    assert preset_names()[0] == "none"
    assert {"genept", "vanilla", "hidden", "ptrag", "ptrag_paper"} <= set(preset_names())
    assert preset_values("rag_fusion") == {
        name: values["rag_fusion"] for name, values in presets().items() if values.get("rag_fusion") == "residual"
    }
    assert "rag=ptrag: residual" in help_text(["rag_fusion"])


def test_an_unknown_name_is_refused_with_close_spellings():
    with pytest.raises(StateRagError, match="training.topk_rga is no flag.*topk_rag"):
        help_text(["topk_rga"])


def test_the_command_prints_both(capsys):
    assert main(["settings", "topk_rag"]) == 0
    assert capsys.readouterr().out == help_text(["topk_rag"])
    assert main(["settings", "--markdown"]) == 0
    assert capsys.readouterr().out == markdown_table()


def test_the_command_loads_no_torch():
    code = "from state_rag.cli import main; main(['settings']); import sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", FLAGS)
def test_what_a_flag_says_it_takes_is_what_it_takes(name):
    """The default is taken, and what is of another type is refused by the words of the help."""
    default = FLAGS[name].default
    RagSettings.from_mapping({name: list(default) if isinstance(default, tuple) else default})
    with pytest.raises(StateRagError, match=f"training.{name}="):
        RagSettings.from_mapping({name: {"a": 1}})
