import pytest

from state_rag.names.controls import control_likeness


@pytest.mark.parametrize(
    ("label", "likeness"),
    [
        ("non-targeting", 3), ("Non_Targeting Control", 3), ("CTRL", 3), ("neg-ctrl", 3), ("Vehicle", 3),
        ("non-targeting_00012", 2), ("NT-1", 2), ("DMSO_TF 0.0 uM", 2), ("ctrl+ctrl", 3),
        ("AAVS1", 1), ("WT", 1), ("mock", 1),
        ("ctrl+AARS", 0), ("NTRK1", 0), ("CTLA4", 0), ("WTAP", 0), ("0", 0), ("", 0),
    ],
)  # fmt: skip
def test_labels_that_are_like_a_control(label, likeness):
    assert control_likeness(label) == likeness
