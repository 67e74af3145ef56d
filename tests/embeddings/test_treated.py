import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.embeddings.table import Embeddings
from state_rag.embeddings.treated import Coordinates, labelled, treated, with_names
from state_rag.names.treatments import Treatment, label_of

TABLE = Embeddings(("A", "B", "odd:1"), np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32), source="a test")


def test_a_dose_between_two_lies_between_them_and_training_is_standardised():
    labels = [f"{name}:dose={dose}:time=24" for name in "AB" for dose in (0.01, 0.1, 1, 10)]
    coordinates = Coordinates.of(labels)
    assert coordinates.width == 1  # one time tells nothing
    found = coordinates(labels)[:, 0]
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1, rel=1e-6)
    least, between, most = coordinates(["A:dose=0.1:time=24", "A:dose=0.5:time=24", "A:dose=1"])[:, 0]
    assert least < between < most
    logs = np.log10([0.01, 0.1, 1, 10])
    assert between == pytest.approx((np.log10(0.5) - logs.mean()) / logs.std(), rel=1e-5)


def test_a_dose_of_0_counts_as_a_tenth_of_the_least():
    coordinates = Coordinates.of(["A:dose=1", "A:dose=10"])
    assert coordinates(["A:dose=0"]) == coordinates(["A:dose=0.1"])
    assert coordinates(["A:dose=0"]) < coordinates(["A:dose=1"])


def test_modes_have_a_coordinate_each_and_other_modes_are_none_of_training():
    coordinates = Coordinates.of(["A:CRISPRa", "A:CRISPRi", "B"])
    assert coordinates(["X:CRISPRi", "X:CRISPRa", "X"]).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert coordinates.allows("new:CRISPRi")
    assert not coordinates.allows("A:KO")
    # of a combination the mean of its members
    assert coordinates(["A:CRISPRa+B:CRISPRi"]).tolist() == [[0, 0.5, 0.5]]


@given(
    st.lists(
        st.builds(
            Treatment,
            st.sampled_from([None, "KO", "CRISPRi"]),
            st.none() | st.floats(0, 1e6),
            st.none() | st.floats(0, 1e4),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_coordinates_are_finite_and_come_back_from_their_state(treatments):
    labels = [label_of("A", treatment) for treatment in treatments]
    coordinates = Coordinates.of(labels)
    found = coordinates(labels)
    assert found.shape == (len(labels), coordinates.width)
    assert np.isfinite(found).all()
    assert Coordinates.from_state(coordinates.to_state()) == coordinates


def test_labels_are_known_by_their_names_unless_they_are_as_written():
    labels = ["A", "A:KO", "B:dose=1", "A:KO+B:KO", "odd:1", "C:KO", "A+B"]
    assert treated(TABLE, labels) == ["A:KO", "B:dose=1", "A:KO+B:KO"]
    found = labelled(TABLE, labels)
    assert set(found.names) == {"A", "odd:1", "A+B", "A:KO", "B:dose=1", "A:KO+B:KO"}
    assert found.row("A:KO").tolist() == [1, 0, 0]
    assert found.row("A:KO+B:KO").tolist() == [0.5, 1, 0]
    assert with_names(["A:KO+B", "not: a: label"]) == ["A:KO+B", "not: a: label", "A:KO", "B", "A"]


def test_names_without_treatments_are_what_they_were():
    names = ["A", "B", "A+B", "odd:1", "unknown"]
    assert treated(TABLE, names) == []
    assert labelled(TABLE, names).names == TABLE.limited_to(names).names
