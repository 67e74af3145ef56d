import subprocess
import sys

import pytest

from state_rag.errors import StateRagError
from state_rag.upstream import contract


def test_the_installed_versions_have_everything_that_is_relied_on():
    assert contract.missing() == []
    contract.check()


@pytest.mark.parametrize(
    "name", ["state.tx.utils.no_such_function", "state.no_such_module.thing", "no_such_package.thing"]
)
def test_a_name_that_cannot_be_reached_is_missing(name):
    assert contract.missing((name, "state.tx.utils.get_lightning_module")) == [name]


def test_an_explanation_names_what_is_missing_and_which_versions_are_supported(monkeypatch):
    monkeypatch.setattr(contract, "RELIED_ON", ("state.tx.utils.get_lightning_module",))
    text = contract.explain(["state.tx.utils.gone"])
    for part in ("state.tx.utils.gone", "arc-state 0.11", "cell-load 0.10", contract.SUPPORTED, "STATE_RAG_DISABLE=1"):
        assert part in text


def test_a_check_of_a_changed_upstream_fails(monkeypatch):
    import state.tx.models.state_transition as state_transition

    monkeypatch.delattr(state_transition.StateTransitionPerturbationModel, "encode_basal_expression")
    with pytest.raises(StateRagError, match=r"StateTransitionPerturbationModel\.encode_basal_expression"):
        contract.check()


AMPUTATED = """
import sys
import cell_load.data_modules.perturbation_dataloader as dataloader
del dataloader.PerturbationDataModule._process_celltype
sys.argv = ["state", "tx", "predict", "--output-dir", "."]
from state.__main__ import main
main()
"""

RENAMED = """
import sys
import state_rag.startup as startup
startup.disarm()
import state._cli._tx as commands
del commands.run_tx_infer
startup.arm()
print(hasattr(commands, "__state_rag__"))
"""


def test_a_command_refuses_to_run_on_an_upstream_that_lacks_something():
    finished = subprocess.run([sys.executable, "-c", AMPUTATED], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.count("state-rag: error: ") == 1
    assert "Traceback" not in finished.stderr
    assert "cell_load.data_modules.PerturbationDataModule._process_celltype" in finished.stderr
    assert contract.SUPPORTED in finished.stderr


def test_an_upstream_without_a_command_is_left_alone_and_the_reason_is_said():
    finished = subprocess.run([sys.executable, "-c", RENAMED], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
    assert "state-rag is not attached" in finished.stderr
    assert "run_tx_infer" in finished.stderr
    assert contract.SUPPORTED in finished.stderr
