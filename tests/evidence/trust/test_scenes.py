import numpy as np
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.training import Settings
from state_rag.evidence.treatments import axes_of
from state_rag.evidence.trust.expected import FEWEST
from state_rag.evidence.trust.scenes import calibration_scenes
from tests.evidence.pretend_screen import screen
from tests.evidence.pretend_treatments import curves, responses

SHORT = Settings(steps=3, episodes=6, judging=2, fusion_steps=4, calibrating=600)


def test_a_condition_is_asked_about_without_itself_and_each_once():
    bank = Bank(screen().responses())
    asked = []
    for scene, rows in calibration_scenes(bank, "few-shot", 600, 0):
        assert not set(rows.tolist()) & set(scene.supports.tolist())
        asked += rows.tolist()
    assert sorted(asked) == list(range(len(bank)))


def test_what_nothing_would_be_known_of_is_not_asked_about_as_unseen():
    drawn = screen()
    bank = Bank(drawn.responses())
    known = torch.tensor([name not in ("P1", "P2") for name in bank.perturbations])
    asked, supports = set(), set()
    for scene, _ in calibration_scenes(bank, "unseen", 600, 0, known):
        asked |= {bank.perturbations[query] for query in scene.queries.tolist()}
        supports |= {bank.perturbations[one] for one in bank.perturbation[scene.supports].tolist()}
    assert asked == set(bank.perturbations) - {"P1", "P2"}
    assert {"P1", "P2"} <= supports


def test_all_doses_of_a_drug_in_a_line_are_hidden_together():
    data = responses(curves()[0])
    bank = Bank(data, axes=axes_of(data))
    n_asked = 0
    for scene, _ in calibration_scenes(bank, "few-shot", 600, 0):
        here = scene.supports[bank.context[scene.supports] == scene.context]
        names = bank.named[bank.perturbation[here]]
        assert not torch.isin(bank.named[scene.queries], names).any()
        n_asked += len(scene.queries)
    assert n_asked == len(bank)


def test_many_doses_of_few_drugs_are_too_few_to_calibrate_by():
    few, many = (Evidence(SHORT).fit(responses(curves(drugs=drugs)[0]), uses=["few-shot"]) for drugs in (12, 16))
    assert few.calibrated["few-shot"].conditions == 24 < FEWEST < many.calibrated["few-shot"].conditions == 32
    told = few.predict("a", ["D0:dose=0.3"]).trust
    assert not told.calibrated
    assert np.isnan(told.expected[0])
    assert "24 measured conditions to judge by, 30 needed" in told.reason[0]
    assert many.predict("a", ["D0:dose=0.3"]).trust.calibrated
