"""Doses that are held out, and labels of one drug that are held out together.

A label may tell a dose or a time beside the name (`names.treatments`, or Tahoe-100M's lists of drug, dose and unit).
Whoever asks for unseen drugs wants all labels of a name unseen; whoever asks for unseen doses some of them.
"""

from collections.abc import Iterable, Sequence

from state_rag.datasets.splitting.perturbation_draws import Draw, families, of_lists
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.names.treatments import told_in

BETWEEN, HIGHEST = DOSES = ("between", "highest")
"""Which dose of each drug is held out: one between two others, or the highest."""
FEWEST = {BETWEEN: 3, HIGHEST: 2}
"""Doses that a drug needs for that."""


def doses_of(labels: Iterable[str]) -> dict[float, list[str]]:
    """Return dose -> labels of one name that have it, ascending; those that tell none are left out."""
    found: dict[float, list[str]] = {}
    for label in labels:
        if (dose := told_in(label)[1].dose) is not None:
            found.setdefault(dose, []).append(label)
    return dict(sorted(found.items()))


def draw_doses(
    names: Sequence[str],
    control: str,
    kind: str,
    share: float,
    val_share: float,
    seed: int,
    *,
    among: Sequence[str] | None = None,
) -> Draw:
    """Draw one dose of each of a share of the drugs, for the test or for validation; their other doses train.

    A dose is held out with all that has it: at every time, and in every mode.

    Parameters
    ----------
    names
        All perturbations.
    control
        Label of control cells.
    kind
        One of `DOSES`. `between` wants three doses of a drug, `highest` two.
    share
        Fraction of the drugs with enough doses.
    val_share
        Fraction of those whose dose validates; at least one.
    seed
        Draws drugs, and which dose is held out between others.
    among
        Perturbations that can be held out; default: all.

    Raises
    ------
    StateRagError
        If fewer than two drugs have enough doses.
    """
    import numpy as np  # here, since the command line reads DOSES and has to start quickly

    by_name = {name: doses_of(labels) for name, labels in families(names if among is None else among).items()}
    enough = [name for name, doses in by_name.items() if len(doses) >= FEWEST[kind]]
    if len(enough) < 2:
        told = sum(map(bool, by_name.values()))
        write = " Labels tell doses as in NAME:dose=0.5; `state-rag data prepare --dose-col COLUMN` writes them."
        hint = "" if told else write
        raise StateRagError(
            f"--held-out-doses {kind}: {len(enough)} drugs have {FEWEST[kind]} doses or more ({listing(enough)}; "
            f"{told} of {len(by_name)} names tell a dose), and a split needs two, for test and validation.{hint}"
        )
    rng = np.random.default_rng(seed)
    order = [enough[place] for place in rng.permutation(len(enough))]
    order = order[: max(2, round(share * len(order)))]
    n_val = min(max(1, round(val_share * len(order))), len(order) - 1)
    held_out = []
    for name in order:
        doses = list(by_name[name])
        dose = doses[-1] if kind == HIGHEST else doses[1 + int(rng.integers(len(doses) - 2))]
        held_out.append(by_name[name][dose])
    val, test = ([label for labels in part for label in labels] for part in (held_out[:n_val], held_out[n_val:]))
    return of_lists(names, control, test, val)


def trained_doses(tested: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return tested label -> a label of the same name among some names, for tested ones that are not there themselves.

    Examples
    --------
    >>> trained_doses(["A:dose=1", "B:dose=1"], ["A:dose=10", "C:dose=1"])
    {'A:dose=1': 'A:dose=10'}
    """
    there = set(names)
    by_name = families(there)
    found = {}
    for label in tested:
        others = by_name.get(told_in(label)[0], [])
        if label not in there and others:
            found[label] = others[0]
    return found


def between_others(labels: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the labels whose dose lies between two others of its name, among some names.

    Examples
    --------
    >>> between_others(["A:dose=1", "A:dose=100"], ["A:dose=0.1", "A:dose=10"])
    ['A:dose=1']
    """
    by_name = families(names)
    found = []
    for label in labels:
        name, treatment = told_in(label)
        own = doses_of(by_name.get(name, []))
        if treatment.dose is not None and own and min(own) < treatment.dose < max(own):
            found.append(label)
    return found


def not_unseen(tested: Iterable[str], trained: Iterable[str]) -> list[str]:
    """Return, for readers, that tested doses are of drugs that train in others; nothing where none is."""
    others = trained_doses(sorted(tested), trained)
    if not others:
        return []
    shown = listing([f"{label}, where {other} trains" for label, other in others.items()], 3)
    return [
        f"{len(others)} tested perturbations are other doses of drugs that train ({shown}): they ask about doses, and "
        "are no unseen drugs. `data split --held-out-perturbations` holds all doses of a name out together."
    ]
