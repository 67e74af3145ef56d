"""What makes a format, and what does not."""

from state_rag.datasets.formats.known import FORMATS, matching
from tests.datasets.formats.test_in_files import TAHOE, TAKEN


def test_a_format_without_its_control_is_likely_and_common_columns_alone_are_no_format():
    plates = {"drugname_drugconc": TAHOE, "cell_name": ["A549"]}
    (found,) = matching(plates, plates.__getitem__)
    assert (found.sure, found.control) == ("likely", None)
    assert found.words == "Tahoe-100M (likely): perturbation in 'drugname_drugconc', no control 'DMSO_TF'"
    for labels in (["A", "B"], ["A", "ctrl"], ["A+B", "NT"]):
        own = {"condition": labels, "cell_type": ["k562"]}
        assert matching(own, own.__getitem__) == []
    assert len({one.name for one in FORMATS}) == len(FORMATS) == len(TAKEN)


def test_replogle_nadigs_own_names_come_before_every_format():
    obs = {"gene": ["A", "non-targeting"], "perturbation": ["A", "control"], "nperts": ["0", "1"]}
    assert matching(obs, obs.__getitem__) == []
    obs["gene"] = ["A", "control"]
    assert [found.format.name for found in matching(obs, obs.__getitem__)] == ["scPerturb"]
