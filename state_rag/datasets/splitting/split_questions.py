"""Which question a split asks: for each test condition, whether training saw its cell line and its perturbation."""

from collections.abc import Mapping
from dataclasses import dataclass

from state_rag.datasets.splitting.dose_draws import between_others, trained_doses
from state_rag.datasets.splitting.perturbation_draws import members_of, pair_class, singles_of
from state_rag.names import listing

FEW_SHOT, ZERO_SHOT, UNSEEN, UNSEEN_BOTH = QUESTIONS = (
    "few-shot line",
    "zero-shot line",
    "unseen perturbation",
    "unseen perturbation in a zero-shot line",
)
MEANING = {
    FEW_SHOT: "the line trains on other perturbations, and other lines on this one",
    ZERO_SHOT: "the line gives training its controls only; other lines train on the perturbation",
    UNSEEN: "no training cell has the perturbation; the line trains on others",
    UNSEEN_BOTH: "no training cell has the perturbation, and the line gives training its controls only",
}
UNSEEN_DOSE, UNSEEN_DOSE_BOTH = DOSE_QUESTIONS = ("unseen dose", "unseen dose in a zero-shot line")
"""Where no training cell has the label, and some have another dose or time of its name."""
MEANING |= {
    UNSEEN_DOSE: "no training cell has the dose, and some have others of the same name; the line trains",
    UNSEEN_DOSE_BOTH: "no training cell has the dose, and some have others of the same name; the line gives controls",
}


@dataclass(frozen=True)
class Question:
    """Test conditions that ask the same.

    Attributes
    ----------
    name
        One of `QUESTIONS`.
    conditions
        (cell line, perturbation), sorted.
    pairs
        How many tested pairs `A+B` there are of each class (`perturbation_draws.PAIR_CLASSES`), by the singles that
        train.
    given_away
        Tested perturbations that a training label contains, with that label: `A` where `A+B` trains.
    between
        Of unseen doses, how many lie between two that train.
    """

    name: str
    conditions: tuple[tuple[str, str], ...]
    pairs: dict[str, int]
    given_away: dict[str, str]
    between: int = 0

    @property
    def lines(self) -> list[str]:
        """Return the cell lines, sorted."""
        return sorted({line for line, _ in self.conditions})


def questions(conditions: Mapping[tuple[str, str, str], int], control: str) -> list[Question]:
    """Return what the test conditions of a split ask.

    Parameters
    ----------
    conditions
        (part, cell line, perturbation), as in `SplitSummary.conditions`.
    control
        Name of the control, which some labels of singles have in them.

    Examples
    --------
    >>> cells = {("train", "k562", "A"): 9, ("train", "rpe1", "B"): 9}
    >>> cells |= {("test", "k562", "B"): 9, ("test", "rpe1", "C"): 9}
    >>> [(question.name, question.conditions) for question in questions(cells, "control")]
    [('few-shot line', (('k562', 'B'),)), ('unseen perturbation', (('rpe1', 'C'),))]
    """
    lines = {line for part, line, _ in conditions if part == "train"}
    trained = {name for part, _, name in conditions if part == "train"}
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in (*QUESTIONS, *DOSE_QUESTIONS)}
    other_dose = trained_doses({name for part, _, name in conditions if part == "test"}, trained)
    for part, line, name in conditions:
        if part == "test":
            seen = (FEW_SHOT, ZERO_SHOT) if name in trained else (UNSEEN, UNSEEN_BOTH)
            seen = DOSE_QUESTIONS if name in other_dose else seen
            found[seen[line not in lines]].append((line, name))
    singles = singles_of(sorted(trained), control)
    containing: dict[str, str] = {}  # what a training label perturbs besides something else -> the label
    for name in sorted(trained):
        members = members_of(name, control)
        if len(members) > 1:
            for member in members:
                containing.setdefault(member, name)
    asked = []
    for name, places in found.items():
        if not places:
            continue
        tested = sorted({perturbation for _, perturbation in places})
        classes: dict[str, int] = {}
        for perturbation in tested:
            if (kind := pair_class(perturbation, singles, control)) is not None:
                classes[kind] = classes.get(kind, 0) + 1
        given_away = {}
        if name in (UNSEEN, UNSEEN_BOTH):
            alone = {perturbation: members_of(perturbation, control) for perturbation in tested}
            given_away = {
                perturbation: containing[members[0]]
                for perturbation, members in alone.items()
                if len(members) == 1 and members[0] in containing
            }
        between = len(between_others(tested, trained)) if name in DOSE_QUESTIONS else 0
        asked.append(Question(name, tuple(sorted(places)), classes, given_away, between))
    return asked


def told(asked: list[Question]) -> list[str]:
    """Return one line a question, and what lines there are to say about its pairs."""
    text = []
    for question in asked:
        number = len(question.conditions)
        names = len({name for _, name in question.conditions})
        text.append(
            f"{question.name}: {number:,} test condition{'s' * (number != 1)} ({names:,} perturbations in "
            f"{listing(question.lines)}): {MEANING[question.name]}"
        )
        if question.pairs:
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(question.pairs.items()))
            text.append(f"pairs among them, by the members that train as singles: {counts}")
        if question.name in DOSE_QUESTIONS:
            text.append(
                f"doses among them that lie between two that train: {question.between} of {names}. These are no unseen "
                "drugs: for such, hold all doses of a name out (`data split --held-out-perturbations`)"
            )
        if question.given_away:
            some = [f"{name} in {label}" for name, label in question.given_away.items()]
            text.append(f"NOT wholly unseen, since training has them in pairs: {listing(some)}")
    return text
