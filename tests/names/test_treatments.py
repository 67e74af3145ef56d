import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.names.combinations import parts_of
from state_rag.names.treatments import (
    Treatment,
    canonical,
    dose_of,
    hours_of,
    label_of,
    mode_of,
    name_in,
    treatment_of,
    unit_of,
)

NAMES = st.text(min_size=1, max_size=12) | st.text(alphabet="A+:|%=37C2Bdosetime.()[]{}", min_size=1, max_size=12)
NUMBERS = st.none() | st.floats(0, allow_infinity=False, allow_nan=False)
MODES = st.none() | NAMES.map(str.strip).filter(bool)
TREATMENTS = st.builds(Treatment, MODES, NUMBERS, NUMBERS)


@given(NAMES, TREATMENTS)
def test_a_label_is_taken_apart_into_what_it_was_made_of(name, treatment):
    label = label_of(name, treatment)
    found = [treatment_of(part) for part in parts_of(label)]
    assert {part for part, _ in found} == set(parts_of(name))
    assert {one for _, one in found} == {treatment}


@given(NAMES, TREATMENTS)
def test_members_of_a_labelled_combination_are_as_many_as_those_of_its_name(name, treatment):
    assert len(parts_of(label_of(name, treatment))) == len(parts_of(name))


@given(NAMES, TREATMENTS)
def test_a_label_is_its_own_canonical_form(name, treatment):
    label = label_of(name, treatment)
    assert canonical(label) == canonical(canonical(label))
    assert canonical(label_of(parts_of(name)[0], treatment)) == label_of(parts_of(name)[0], treatment)


@given(st.text(max_size=30))
def test_whatever_is_typed_is_a_label_or_refused(text):
    try:
        canonical(text)
    except StateRagError:
        return
    assert isinstance(name_in(text), str)


@given(st.text(max_size=20))
def test_whatever_stands_for_a_dose_or_a_time_is_a_number_or_refused(text):
    for read in (dose_of, hours_of):
        try:
            value = read(text)
        except StateRagError:
            continue
        assert value is None or 0 <= value < float("inf")


@pytest.mark.parametrize(
    ("text", "dose", "unit"),
    [
        ("0.5", 0.5, ""),
        ("500 nM", 0.5, "µM"),
        ("1e-3 mM", 1.0, "µM"),
        ("10_uM", 10.0, "µM"),
        ("0.3µM", 0.3, "µM"),
        ("2 mg/kg", 2.0, "mg/kg"),
        ("0.1 %", 0.1, "%"),
        ("[('Afatinib', 0.05, 'uM')]", 0.05, "µM"),
        ("nan", None, None),
    ],
)
def test_doses_of_the_field_are_read(text, dose, unit):
    assert dose_of(text) == dose
    assert unit_of(text) == unit


@pytest.mark.parametrize("text", ["-1", "high", "1 2", "inf"])
def test_what_is_no_dose_is_refused(text):
    with pytest.raises(StateRagError, match="is no dose: expected a number"):
        dose_of(text)


def test_a_time_in_an_unknown_unit_is_refused():
    with pytest.raises(StateRagError, match="unit 'passages' is unknown; use s, min, h, d or w"):
        hours_of("3 passages")


@pytest.mark.parametrize("label", ["A:x:y", "A:dose=1:dose=2", "A:dose=", "A:colour=red", "A::dose=1"])
def test_what_is_no_label_is_refused(label):
    with pytest.raises(StateRagError, match=r"is no label of a perturbation|is no dose"):
        treatment_of(label)


def test_missing_modes_are_none():
    assert [mode_of(text) for text in ("nan", "", "CRISPRi ")] == [None, None, "CRISPRi"]
