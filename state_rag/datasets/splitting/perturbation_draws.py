"""Which perturbations are held out: names in, lists out; nothing is read or written here.

A label such as `A+B` perturbs `A` and `B` at once. Of what is not tested, the labels that *contain* a tested one (`A+B`
where `A` is tested) would show it to training; they are set aside, and validate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.names.treatments import told_in

BOTH, ONE, NONE, ANY = PAIR_CLASSES = ("both-seen", "one-seen", "none-seen", "any")
"""How many members of a tested pair training sees as singles: all, some, none; `any` does not ask."""


@dataclass(frozen=True)
class Draw:
    """A partition of a screen's perturbations.

    Attributes
    ----------
    train, val, test
        Sorted names.
    aside
        Neither asked about nor trained on: they contain a tested perturbation, or a gene that must stay unseen.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    aside: tuple[str, ...] = ()


def members_of(label: str, control: str | None = None) -> tuple[str, ...]:
    """Return what a label perturbs, sorted: the parts of `A+B` without the control, or the label itself.

    Examples
    --------
    >>> members_of("KLF1+SET"), members_of("KLF1+ctrl", "ctrl"), members_of("(+)-JQ1")
    (('KLF1', 'SET'), ('KLF1',), ('(+)-JQ1',))
    """
    parts = [part.strip() for part in label.split("+")]
    whole = all(any(map(str.isalnum, part)) and part.count("(") == part.count(")") for part in parts)
    if not whole:
        return (label,)
    return tuple(sorted({part for part in parts if part != control})) or (label,)


def pair_class(label: str, singles: set[str], control: str | None = None) -> str | None:
    """Return how many members of a pair are among `singles`; None for what is no pair.

    Examples
    --------
    >>> [pair_class(name, {"A", "B"}) for name in ("A+B", "A+C", "C+D", "A")]
    ['both-seen', 'one-seen', 'none-seen', None]
    """
    members = members_of(label, control)
    if len(members) < 2:
        return None
    seen = sum(member in singles for member in members)
    return BOTH if seen == len(members) else ONE if seen else NONE


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Return name -> its labels, sorted: one label each where labels tell no dose and no time.

    Examples
    --------
    >>> families(["A:dose=1", "A:dose=10", "B", "TP53:KO"])
    {'A': ['A:dose=1', 'A:dose=10'], 'B': ['B'], 'TP53:KO': ['TP53:KO']}
    """
    found: dict[str, list[str]] = {}
    for label in sorted(names):
        found.setdefault(told_in(label)[0], []).append(label)
    return found


def singles_of(names: Sequence[str], control: str | None = None) -> set[str]:
    """Return the members that a label perturbs alone."""
    parted = (members_of(name, control) for name in names)
    return {members[0] for members in parted if len(members) == 1}


def draw_share(
    names: Sequence[str],
    control: str,
    share: float,
    val_share: float,
    seed: int,
    *,
    among: Sequence[str] | None = None,
) -> Draw:
    """Draw a share of the perturbations (default: of all) for the test and another for validation; at least one each.

    All doses and times of a name are held out together.

    Raises
    ------
    StateRagError
        If fewer than two can be held out, or none would be left to train on.
    """
    order = _shuffled(list(families(names if among is None else among)), seed)
    if len(order) < 2:
        raise StateRagError(
            f"--held-out-perturbations {share:g}: {len(order)} perturbations can be held out ({listing(order)}), and a "
            "split needs two, for test and validation."
        )
    n_val = _count(val_share, len(order))
    n_test = min(_count(share, len(order)), len(order) - 1)
    return _of_families(names, control, order[:n_test], order[n_test : n_test + n_val], among=among)


def draw_folds(
    names: Sequence[str], control: str, folds: int, val_share: float, seed: int, *, among: Sequence[str] | None = None
) -> list[Draw]:
    """Deal perturbations into folds, each the test of one draw; together they are all of `among` (default: of `names`).

    All doses and times of a name are in one fold.

    Raises
    ------
    StateRagError
        If there are fewer perturbations than folds, fewer than two folds, or a fold leaves none to train on.
    """
    dealt = _shuffled(list(families(names if among is None else among)), seed)
    if not 2 <= folds <= len(dealt):
        raise StateRagError(
            f"--folds {folds}: expected from 2 to {len(dealt)}, the number of perturbations that can be held out."
        )
    draws = []
    for number in range(folds):
        test = dealt[number::folds]
        rest = _shuffled(sorted(set(dealt) - set(test)), [seed, number])
        draws.append(_of_families(names, control, test, rest[: _count(val_share, len(dealt))], among=among))
    return draws


def draw_pairs(
    names: Sequence[str],
    control: str,
    kind: str,
    share: float,
    val_share: float,
    seed: int,
    *,
    among: Sequence[str] | None = None,
) -> Draw:
    """Draw pairs of one class for test and validation; singles are set aside where members must stay unseen.

    The class of a tested pair is told from the singles that train. What must not be seen of a tested pair is in no
    training label, as a single or in another pair; so a pair whose members are measured as singles becomes `one-seen`
    or `none-seen` by setting aside one of these singles, or all. Pairs that need no such loss come first. All doses and
    times of a pair are held out together, and what is set aside is so in all of its doses and times.

    Parameters
    ----------
    names
        All perturbations.
    kind
        One of `PAIR_CLASSES`.
    share, val_share
        Fractions of the pairs that can be of that class; at least one each.
    among
        Perturbations that can be held out; default: all.

    Raises
    ------
    StateRagError
        If the data have fewer than two such pairs, or none would be left to train on.
    """
    together = families(names)
    singles = singles_of(list(together), control)
    eligible = list(families(pairs_for(names, control, kind, among)))
    if len(eligible) < 2:
        pairs = [name for name in together if len(members_of(name, control)) > 1]
        such = f" ({listing(pairs)})" if pairs else ""
        raise StateRagError(
            f"--held-out-pairs {kind}: {len(eligible)} pairs can be of that class, and a split needs two, for test and "
            f"validation. The data have {len(pairs)} pairs A+B{such} and {len(singles)} singles."
        )
    n_test, n_val = _count(share, len(eligible)), _count(val_share, len(eligible))
    unseen: set[str] = set()  # members that no training label may have
    needed: set[str] = set()  # members whose singles have to
    chosen: list[str] = []
    order = _shuffled(eligible, seed)
    if kind in (ONE, NONE):
        losses = {name: _loss(members_of(name, control), kind, singles) for name in order}
        order = sorted(order, key=lambda name: losses[name])
    for name in order:
        if len(chosen) == n_test + n_val:
            break
        wanted = _wanted(members_of(name, control), kind, singles, unseen, needed)
        if wanted is not None:
            chosen.append(name)
            unseen |= wanted[0]
            needed |= wanted[1]
    if len(chosen) < 2:
        raise StateRagError(
            f"--held-out-pairs {kind}: only {len(chosen)} pairs can be of that class at once, and a split needs two, "
            "for test and validation."
        )
    n_test = min(n_test, len(chosen) - 1)
    return _of_families(names, control, chosen[:n_test], chosen[n_test:], unseen, among=among)


def pairs_for(names: Sequence[str], control: str, kind: str, among: Sequence[str] | None = None) -> list[str]:
    """Return the pairs (default: of all) that can be tested as one of a class, singles being set aside if needed."""
    singles = singles_of(list(families(names)), control)
    possible = {ANY: (BOTH, ONE, NONE), BOTH: (BOTH,), ONE: (BOTH, ONE), NONE: (BOTH, ONE, NONE)}[kind]
    together = families(names if among is None else among)
    return _labels(together, [name for name in together if pair_class(name, singles, control) in possible])


def of_lists(
    names: Sequence[str], control: str, test: Sequence[str], val: Sequence[str], unseen: set[str] | None = None
) -> Draw:
    """Return the draw that tests and validates on given names.

    Parameters
    ----------
    names
        All perturbations.
    test, val
        Those of them that are held out.
    unseen
        Members that no training label may have.

    Raises
    ------
    StateRagError
        If none would be left to train on.
    """
    members = {name: set(members_of(name, control)) for name in names}
    # Of a label that contains a tested one, some member is met in the index; so few have to be compared.
    tested: dict[str, list[set[str]]] = {}
    for name in test:
        for member in members[name]:
            tested.setdefault(member, []).append(members[name])

    def gives_away(name: str) -> bool:
        if members[name] & (unseen or set()):
            return True
        return any(other <= members[name] for member in members[name] for other in tested.get(member, ()))

    rest = set(names) - set(test) - set(val)
    aside = {name for name in rest if gives_away(name)}
    train = rest - aside
    if not train:
        raise StateRagError(
            f"None of {len(names)} perturbations is left to train on: {len(test)} are tested, {len(val)} validate, and "
            f"{len(aside)} contain a tested one. Hold out fewer."
        )
    train_list, val_list, test_list, aside_list = (tuple(sorted(part)) for part in (train, set(val), set(test), aside))
    return Draw(train_list, val_list, test_list, aside_list)


def _of_families(
    names: Sequence[str],
    control: str,
    test: Sequence[str],
    val: Sequence[str],
    unseen: set[str] | None = None,
    *,
    among: Sequence[str] | None,
) -> Draw:
    """Return the draw of `of_lists` for names in all their doses and times; those not `among` are set aside."""
    together = families(names)
    drawn = of_lists(list(together), control, test, val, unseen)
    asked = set(names if among is None else among)
    held_out = [_labels(together, part) for part in (drawn.val, drawn.test)]
    aside = [*_labels(together, drawn.aside), *(label for part in held_out for label in part if label not in asked)]
    in_val, in_test = ([label for label in part if label in asked] for part in held_out)
    parts = (_labels(together, drawn.train), in_val, in_test, aside)
    return Draw(*(tuple(sorted(part)) for part in parts))


def _labels(together: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    return [label for name in names for label in together[name]]


def _wanted(
    members: Sequence[str], kind: str, singles: set[str], unseen: set[str], needed: set[str]
) -> tuple[set[str], set[str]] | None:
    """Return which members of a pair have to be unseen and which seen for its class; None where that contradicts."""
    measured = [member for member in members if member in singles]
    if kind == ANY:
        return set(), set()
    if kind == BOTH:
        return set(), set(measured)
    if kind == NONE:
        return None if needed & set(members) else (set(members), set())
    keep = next((member for member in measured if member in needed), None)
    keep = keep or next((member for member in measured if member not in unseen), None)
    if keep is None:
        return None
    drop = {member for member in members if member != keep}
    return None if drop & needed else (drop, {keep})


def _loss(members: Sequence[str], kind: str, singles: set[str]) -> int:
    """Return how many singles may not train if a pair is to be of a class."""
    measured = sum(member in singles for member in members)
    return measured if kind == NONE else int(measured == len(members))


def _shuffled(names: Sequence[str], seed: int | list[int]) -> list[str]:
    import numpy as np  # here, since the command line reads PAIR_CLASSES and has to start quickly

    names = sorted(names)
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def _count(share: float, total: int) -> int:
    return max(1, round(share * total))
