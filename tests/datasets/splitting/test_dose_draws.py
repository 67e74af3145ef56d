"""Which doses are held out, and that no dose of a drug trains where the drug is asked about as unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.datasets.splitting.dose_draws import BETWEEN, DOSES, HIGHEST, between_others, draw_doses, trained_doses
from state_rag.datasets.splitting.perturbation_draws import draw_folds, draw_share, families
from state_rag.datasets.splitting.perturbation_splits import write_perturbation_splits
from state_rag.datasets.splitting.split_check import check_split
from state_rag.datasets.splitting.split_questions import UNSEEN, UNSEEN_DOSE, questions, told
from state_rag.datasets.splitting.splits import with_doses, write_split
from state_rag.engine.fitting import uses_of
from state_rag.errors import StateRagError
from tests.datasets.splitting.test_perturbation_splits import OWN, file_of

CONTROL = "ctrl"
SCREENS = st.dictionaries(
    st.sampled_from("ABCDEFGH"), st.sets(st.sampled_from([0.01, 0.1, 1.0, 10.0]), min_size=1), min_size=5
)


def labels_of(screen, form="{}:dose={:g}"):
    return [form.format(name, dose) for name, doses in screen.items() for dose in doses]


def name_of(label):
    return label.split("'")[1] if label.startswith("[") else label.split(":")[0]


@settings(max_examples=60, deadline=None)
@given(
    SCREENS, st.sampled_from(["{}:dose={:g}", "[('{}', {:g}, 'uM')]", "{}:KO:dose={:g}:time=24"]), st.integers(0, 99)
)
def test_no_dose_of_a_held_out_drug_trains(screen, form, seed):
    labels = labels_of(screen, form)
    for draw in (draw_share(labels, CONTROL, 0.3, 0.1, seed), *draw_folds(labels, CONTROL, 3, 0.1, seed)):
        parts = [{name_of(label) for label in part} for part in (draw.train, draw.val, draw.test)]
        assert not parts[0] & parts[2]
        assert not parts[0] & parts[1]
        assert sorted([*draw.train, *draw.val, *draw.test]) == sorted(labels)
    assert len({name_of(label) for label in draw_share(labels, CONTROL, 0.3, 0.1, seed).test}) == max(
        1, round(0.3 * len(screen))
    )


@settings(max_examples=60, deadline=None)
@given(SCREENS, st.sampled_from(DOSES), st.integers(0, 99))
def test_one_dose_of_each_drug_is_held_out(screen, kind, seed):
    labels = labels_of(screen)
    enough = {name for name, doses in screen.items() if len(doses) >= (3 if kind == BETWEEN else 2)}
    if len(enough) < 2:
        with pytest.raises(StateRagError, match=f"--held-out-doses {kind}: {len(enough)} drugs have"):
            draw_doses(labels, CONTROL, kind, 1.0, 0.1, seed)
        return
    draw = draw_doses(labels, CONTROL, kind, 1.0, 0.1, seed)
    held_out = [*draw.val, *draw.test]
    assert sorted(map(name_of, held_out)) == sorted(enough)
    assert draw.val
    assert draw.test
    for label in held_out:
        dose, others = float(label.split("=")[1]), screen[name_of(label)]
        if kind == HIGHEST:
            assert dose == max(others)
        else:
            assert min(others) < dose < max(others)
    trained = [label for label in labels if label not in held_out]
    assert sorted(draw.train) == sorted(trained)
    assert set(between_others(held_out, trained)) == (set(held_out) if kind == BETWEEN else set())


def test_all_times_of_a_dose_are_held_out_with_it():
    labels = [f"{name}:dose={dose}:time={time}" for name in "ABC" for dose in (1, 2, 3) for time in (6, 24)]
    draw = draw_doses(labels, CONTROL, HIGHEST, 1.0, 0.1, 0)
    assert {*draw.val, *draw.test} == {label for label in labels if "dose=3" in label}


def test_a_fraction_of_the_drugs():
    labels = labels_of({name: {1, 2, 3} for name in "ABCDEFGHIJ"})
    draw = draw_doses(labels, CONTROL, BETWEEN, 0.4, 0.25, 0)
    assert (len(draw.val), len(draw.test), len(draw.train)) == (1, 3, 26)


def test_combinations_with_another_dose_of_a_held_out_drug_do_not_train():
    labels = [*labels_of({name: {1, 10} for name in "ABCDE"}), "A:dose=3+B:dose=3", "C:dose=3+D:dose=3"]
    for seed in range(20):
        draw = draw_share(labels, CONTROL, 0.2, 0.1, seed)
        tested = {name_of(label) for label in draw.test if "+" not in label}
        for label in draw.train:
            assert not tested & {name_of(part) for part in label.split("+")}


def test_screens_without_doses_are_drawn_as_ever():
    names = list("ABCDEFGHIJ")
    order = [names[place] for place in np.random.default_rng(3).permutation(10)]
    draw = draw_share(names, CONTROL, 0.2, 0.1, 3)
    assert draw.test == tuple(sorted(order[:2]))
    assert draw.val == tuple(order[2:3])
    assert families(["chr1:5-9", "chr1:7-9", "TP53:KO"]) == {
        one: [one] for one in ("TP53:KO", "chr1:5-9", "chr1:7-9")
    }  # no doses


def screen_of(tmp_path, lines=("k562",), names="ABCDEFGHIJ", doses=(0.1, 1, 10)):
    conditions = [(line, f"{name}:dose={dose}") for line in lines for name in names for dose in doses]
    return file_of(tmp_path / "a.h5ad", conditions, cells=3)


def test_splits_say_what_they_ask_and_the_engine_learns_that(tmp_path, caplog):
    path = screen_of(tmp_path, ("k562", "rpe1"))
    (split,) = write_perturbation_splits(path, output=tmp_path / "s.toml", doses=BETWEEN)
    summary = check_split(split, **OWN)
    (asked,) = questions(summary.conditions, CONTROL)
    assert (asked.name, asked.between, len(asked.conditions)) == (UNSEEN_DOSE, 9, 18)
    assert "doses among them that lie between two that train: 9 of 9. These are no unseen drugs" in told([asked])[1]
    assert uses_of(summary.conditions, CONTROL) == ["few-shot", "unseen"]
    assert any("9 tested perturbations are other doses of drugs that train (" in one for one in summary.warnings)
    assert "One dose of each drug (between) held out of every cell line" in split.path.read_text()
    (split,) = write_perturbation_splits(path, output=tmp_path / "s.toml", doses=HIGHEST, share=0.5)
    (asked,) = questions(check_split(split, **OWN).conditions, CONTROL)
    assert (asked.name, asked.between, len(asked.conditions)) == (UNSEEN_DOSE, 0, 8)
    (split,) = write_perturbation_splits(path, output=tmp_path / "s.toml", share=0.2)
    summary = check_split(split, **OWN)
    (asked,) = questions(summary.conditions, CONTROL)
    assert (asked.name, len(asked.conditions)) == (UNSEEN, 2 * 2 * 3)
    assert not [one for one in summary.warnings if "other doses" in one]


def test_a_line_trains_on_all_doses_of_a_drug_or_none(tmp_path):
    split = write_split(screen_of(tmp_path, ("k562", "rpe1")), "k562", output=tmp_path / "s.toml", few_shot=0.3)
    parts = [{name_of(label) for label in part} for part in (split.train, split.val, split.test)]
    assert list(map(len, parts)) == [3, 1, 6]
    assert len(set.union(*parts)) == 10


def test_a_drug_in_a_list_stands_for_its_doses_and_a_dose_alone_is_warned_of(tmp_path, caplog):
    path = screen_of(tmp_path)
    (tmp_path / "list.txt").write_text("A\nB\n")
    (split,) = write_perturbation_splits(path, output=tmp_path / "s.toml", test_list=tmp_path / "list.txt")
    assert {name_of(label) for label in split.test} == {"A", "B"}
    assert len(split.test) == 6
    assert len({name_of(label) for label in split.val}) == 1
    assert len(split.val) == 3
    assert not caplog.records
    (tmp_path / "list.txt").write_text("A\nB:dose=1\n")
    (split,) = write_perturbation_splits(path, output=tmp_path / "s.toml", test_list=tmp_path / "list.txt")
    assert len(split.test) == 4
    assert "1 tested perturbations are other doses of drugs that train (B:dose=1, where B:dose=0.1" in caplog.text
    assert "In a list the name of a drug stands for all its doses" in caplog.text
    assert with_doses(["Z"], ["A:dose=1"]) == ["Z"]  # which is refused as unknown


def test_what_contradicts_doses_is_refused(tmp_path):
    path = screen_of(tmp_path)
    for options, said in (
        ({"folds": 3}, "leave --folds out"),
        ({"pairs": "any"}, "leave --held-out-pairs out"),
        ({"test_list": path}, "lists it. Leave one out"),
    ):
        with pytest.raises(StateRagError, match=said):
            write_perturbation_splits(path, output=tmp_path / "s.toml", doses=BETWEEN, **options)
    with pytest.raises(StateRagError, match="expected one of between, highest"):
        write_perturbation_splits(path, output=tmp_path / "s.toml", doses="least")
    plain = file_of(tmp_path / "b.h5ad", [("k562", name) for name in "ABCDE"])
    with pytest.raises(StateRagError, match="0 of 5 names tell a dose.*data prepare --dose-col COLUMN"):
        write_perturbation_splits(plain, output=tmp_path / "s.toml", doses=BETWEEN)


def test_only_labels_without_cells_are_other_doses():
    assert trained_doses(["A:dose=1", "A:dose=2", "B"], ["A:dose=2", "B"]) == {"A:dose=1": "A:dose=2"}
