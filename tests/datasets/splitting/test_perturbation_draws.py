import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from state_rag.datasets.splitting.perturbation_draws import (
    PAIR_CLASSES,
    draw_folds,
    draw_pairs,
    draw_share,
    members_of,
    of_lists,
    pair_class,
    pairs_for,
)
from state_rag.errors import StateRagError
from state_rag.names.treatments import name_in

CONTROL = "control"
GENES = [f"G{i}" for i in range(12)]


@st.composite
def screens(draw, least=6):
    """Labels of a screen: singles, some of them `control+A`, and pairs of genes that need not be singles."""
    singles = draw(st.sets(st.sampled_from(GENES), min_size=2))
    pairs = draw(st.sets(st.tuples(st.sampled_from(GENES), st.sampled_from(GENES)), max_size=14))
    odd = draw(st.sets(st.sampled_from(GENES), max_size=2))
    names = {*singles, *(f"{a}+{b}" for a, b in pairs), *(f"{CONTROL}+{gene}" for gene in odd)}
    assume(len(names) >= least)
    return sorted(names)


def partition(draw, names):
    parts = [draw.train, draw.val, draw.test, draw.aside]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert draw.train
    assert draw.test
    assert draw.val
    return draw


def drawn_or_none(draw, *arguments):
    """The draw; None where the screen is too small for it."""
    try:
        return draw(*arguments)
    except StateRagError as error:
        if not re.search("is left to train on|a split needs two", str(error)):
            raise
        return None


def contains(name, other):
    """By loops over the parts of two labels."""
    parts = [part for part in name.split("+") if part != CONTROL]
    return all(part in parts for part in other.split("+") if part != CONTROL)


@given(names=screens(), share=st.floats(0.01, 0.4), seed=st.integers(0, 50))
def test_a_share_is_a_partition_and_no_training_label_contains_a_tested_one(names, share, seed):
    drawn = drawn_or_none(draw_share, names, CONTROL, share, 0.1, seed)
    assume(drawn)
    partition(drawn, names)
    assert drawn == draw_share(list(reversed(names)), CONTROL, share, 0.1, seed)
    assert len(drawn.test) == max(1, round(share * len(names)))
    for tested in drawn.test:
        assert not [name for name in drawn.train if contains(name, tested)]
    for name in drawn.aside:
        assert any(contains(name, tested) for tested in drawn.test)


@given(names=screens(), folds=st.integers(2, 6), seed=st.integers(0, 50))
def test_folds_test_every_perturbation_once(names, folds, seed):
    draws = drawn_or_none(draw_folds, names, CONTROL, folds, 0.1, seed)
    assume(draws)
    assert draws == draw_folds(names, CONTROL, folds, 0.1, seed)
    assert len(draws) == folds
    assert sorted(name for draw in draws for name in draw.test) == names
    sizes = [len(partition(draw, names).test) for draw in draws]
    assert max(sizes) - min(sizes) <= 1
    for draw in draws:
        assert not [name for name in draw.train for tested in draw.test if contains(name, tested)]


def loop_class(pair, train):
    """The class of a pair by counting, over the training labels, the members that one of them perturbs alone."""
    seen = 0
    members = [part for part in dict.fromkeys(pair.split("+")) if part != CONTROL]
    for member in members:
        for label in train:
            parts = {part for part in label.split("+") if part != CONTROL}
            if parts == {member}:
                seen += 1
                break
    return {0: "none-seen", len(members): "both-seen"}.get(seen, "one-seen")


@given(names=screens(), kind=st.sampled_from(PAIR_CLASSES), share=st.floats(0.01, 0.6), seed=st.integers(0, 50))
def test_tested_pairs_are_of_the_class_asked_for(names, kind, share, seed):
    drawn = drawn_or_none(draw_pairs, names, CONTROL, kind, share, 0.1, seed)
    assume(drawn)
    partition(drawn, names)
    assert drawn == draw_pairs(list(reversed(names)), CONTROL, kind, share, 0.1, seed)
    assert set(drawn.test) <= set(pairs_for(names, CONTROL, kind))
    train_members = {part for label in drawn.train for part in label.split("+")}
    for pair in drawn.test:
        found = loop_class(pair, drawn.train)
        assert kind in ("any", found)
        parts = set(pair.split("+"))
        if kind == "none-seen":
            assert not parts & train_members
        if kind == "one-seen":
            assert len(parts & train_members) == 1
    if kind in ("both-seen", "any"):
        assert not [name for name in drawn.aside if not any(contains(name, tested) for tested in drawn.test)]


@given(names=screens(), seed=st.integers(0, 50))
def test_classes_equal_those_of_loops(names, seed):
    singles = {name for name in GENES if any(members_of(label, CONTROL) == (name,) for label in names)}
    for name in names:
        found = pair_class(name, singles, CONTROL)
        parts = {part for part in name.split("+") if part != CONTROL}
        assert found == (loop_class(name, names) if len(parts) > 1 else None)


def test_folds_of_pairs_leave_all_singles_to_training():
    names = ["A", "B", "C", "A+B", "A+C", "B+C"]
    draws = draw_folds(names, CONTROL, 3, 0.1, 0, among=pairs_for(names, CONTROL, "both-seen"))
    assert sorted(name for draw in draws for name in draw.test) == ["A+B", "A+C", "B+C"]
    assert all({"A", "B", "C"} <= set(draw.train) for draw in draws)


def test_what_contains_a_listed_perturbation_is_set_aside():
    drawn = of_lists(["A", "B", "C", "A+B", "B+A", "A+B+C", "B+C"], CONTROL, ["A+B", "C"], ["B"])
    assert drawn.aside == ("A+B+C", "B+A", "B+C")
    assert drawn.train == ("A",)


@pytest.mark.parametrize("kind", ["both-seen", "one-seen", "none-seen", "any"])
def test_all_doses_of_a_pair_are_held_out_together(kind):
    drugs = "ABCDEFGHIJ"
    names = [f"{drug}:dose={dose}" for drug in drugs for dose in (1, 10)]
    pairs = [f"{a}:dose={dose}+{b}:dose=1" for a, b in zip(drugs, drugs[1:], strict=False) for dose in (1, 10)]
    for seed in range(5):
        drawn = draw_pairs([*names, *pairs], CONTROL, kind, 0.2, 0.1, seed)
        assert sorted([*drawn.train, *drawn.val, *drawn.test, *drawn.aside]) == sorted([*names, *pairs])
        tested = {name_in(label) for label in drawn.test}
        assert tested
        assert not tested & {name_in(label) for label in (*drawn.train, *drawn.val, *drawn.aside)}
        trained = {name_in(label) for label in drawn.train}
        if kind != "any":
            seen = {"both-seen": 2, "one-seen": 1, "none-seen": 0}[kind]
            assert {sum(drug in trained for drug in name.split("+")) for name in tested} == {seen}


def test_doses_of_a_tested_pair_that_the_line_lacks_do_not_train():
    singles = [f"{drug}:dose=1" for drug in "ABCD"]
    pairs = ["A:dose=1+B:dose=1", "A:dose=10+B:dose=1", "C:dose=1+D:dose=1", "C:dose=10+D:dose=1"]
    in_line = [*singles, *(pair for pair in pairs if "dose=10" not in pair)]
    among = pairs_for([*singles, *pairs], CONTROL, "both-seen", in_line)
    for drawn in draw_folds([*singles, *pairs], CONTROL, 2, 0.1, 0, among=among):
        assert set(drawn.test) | set(drawn.val) <= set(in_line)
        held_out = {name_in(label) for label in (*drawn.test, *drawn.val)}
        assert not held_out & {name_in(label) for label in drawn.train}
        assert set(singles) <= set(drawn.train)


def test_a_tested_combination_leaves_its_members_to_training():
    singles = [f"{drug}:dose={dose}" for drug in "ABCD" for dose in (1, 10)]
    pairs = ["A:dose=1+B:dose=1", "C:dose=1+D:dose=1", "A:dose=1+C:dose=1"]
    drawn = draw_folds(
        [*singles, *pairs], CONTROL, 3, 0.1, 0, among=pairs_for([*singles, *pairs], CONTROL, "both-seen")
    )
    assert sorted(label for draw in drawn for label in draw.test) == sorted(pairs)
    assert all(set(singles) <= set(draw.train) for draw in drawn)


def test_drug_names_with_a_plus_sign_are_no_pairs():
    assert members_of("(+)-JQ1 (0.1 uM)") == ("(+)-JQ1 (0.1 uM)",)
    assert members_of("A + B") == ("A", "B")
    assert members_of("A+A") == ("A",)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: draw_folds(["A", "B", "C"], CONTROL, 4, 0.1, 0), "--folds 4: expected from 2 to 3"),
        (lambda: draw_folds(["A", "B", "C"], CONTROL, 1, 0.1, 0), "--folds 1"),
        (lambda: draw_share(["A", "B"], CONTROL, 0.5, 0.1, 0), "None of 2 perturbations is left to train on"),
        (
            lambda: draw_share(["A", "B", "C"], CONTROL, 0.5, 0.1, 0, among=["A"]),
            r"1 perturbations can be .*\(A\).*two",
        ),
        (lambda: draw_pairs(["A", "B", "A+B"], CONTROL, "both-seen", 0.2, 0.1, 0), "1 pairs can be of that class"),
        (lambda: draw_pairs(["A", "B"], CONTROL, "any", 0.2, 0.1, 0), "The data have 0 pairs A.B and 2 singles"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, said):
    with pytest.raises(StateRagError, match=said):
        call()


def test_a_large_share_leaves_one_to_validate():
    drawn = draw_share(GENES, CONTROL, 0.95, 0.1, 0, among=GENES[:4])
    assert (len(drawn.test), len(drawn.val), len(drawn.train)) == (3, 1, 8)
