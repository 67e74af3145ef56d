"""Which perturbations of a run can be chosen, and what is said of those that cannot."""

import logging
import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from state_rag.engine.folder import EvidenceRun
from state_rag.errors import StateRagError
from state_rag.evidence.choices.roster import Roster
from state_rag.names import listing, suggest
from state_rag.names.combinations import SEPARATOR, parts_of
from state_rag.names.treatments import name_in

logger = logging.getLogger(__name__)

MOST_PAIRS = 50_000
"""Pairs that a choice is made of at most."""


def offered(run: EvidenceRun, names: Sequence[str] | None = None, *, pairs: bool = False) -> list[str]:
    """Return perturbations in the run's own spelling, without the control; of the whole run where none are named.

    Parameters
    ----------
    run
        An evidence run.
    names
        Perturbations, combinations `A+B` too, whose members may be in any order and have other names.
    pairs
        Return all pairs of the single ones among them instead.

    Raises
    ------
    StateRagError
        If there are more than `MOST_PAIRS` pairs, or none.
    """
    control = run.data.get("control_pert")
    chosen = run.engine.bank.offered if names is None else [own_name(run, name) for name in names]
    found = [name for name in dict.fromkeys(chosen) if name != control]
    return pairs_of(run, found) if pairs else found


def pairs_of(run: EvidenceRun, names: Sequence[str]) -> list[str]:
    """Return all pairs of the single perturbations among names, but for those of two treatments of the same.

    Raises
    ------
    StateRagError
        As `offered` does.
    """
    single = sorted(name for name in names if not run.engine.combining.members(name))
    count = math.comb(len(single), 2)
    if count > MOST_PAIRS:
        fit = (1 + math.isqrt(1 + 8 * MOST_PAIRS)) // 2
        raise StateRagError(
            f"{len(single):,} perturbations make {count:,} pairs, and {MOST_PAIRS:,} can be looked at, those of "
            f"{fit}. Name fewer with --candidates: `state-rag search` without pairs, for one, writes them best first "
            "into candidates.csv."
        )
    treated = run.engine.bank.treatments is not None
    called = {name: name_in(name) if treated else name for name in single}
    found = [SEPARATOR.join(pair) for pair in combinations(single, 2) if called[pair[0]] != called[pair[1]]]
    if not found:
        raise StateRagError(f"no pair can be made of {listing(names) or 'nothing'}; offer two perturbations or more.")
    return found


def own_name(run: EvidenceRun, name: str) -> str:
    """Return what a run calls a perturbation; of a combination `A+B` its members, in alphabetical order.

    Raises
    ------
    StateRagError
        As `EvidenceRun.own_name` does.
    """
    if run.engine.bank.treatments is None and run.engine.combining.members(name):
        return SEPARATOR.join(sorted(map(run.own_name, parts_of(name))))
    return run.own_name(name)


def own_names(run: EvidenceRun, names: Iterable[str], what: str) -> list[str]:
    """Return names in the run's own spelling, and say which stand for nothing that could be chosen."""
    bank = run.engine.bank
    found = [own_name(run, name) for name in names]
    unknown = [name for name in found if bank.number_of(name) < 0 and not run.engine.combining.members(name)]
    if unknown:
        close = suggest(unknown, bank.offered)
        logger.warning("No perturbation of the run, though %s: %s%s.", what, listing(unknown), close)
    return found


def tell_left_out(run: EvidenceRun, unknown: Sequence[str]) -> None:
    """Warn of perturbations that were left out, since no embedding and no response elsewhere knows them."""
    if unknown:
        bank = run.engine.bank
        close = suggest([name for name in unknown if bank.number_of(name) < 0], bank.offered)
        logger.warning("Left out, known by no embedding and no response elsewhere: %s%s.", listing(unknown), close)


def tell_measured(run: EvidenceRun, contexts: Sequence[str], names: Sequence[str], what: str) -> None:
    """Warn of named perturbations that were measured in all contexts, and so are no candidates, or no targets.

    Parameters
    ----------
    run
        An evidence run.
    contexts
        Where experiments are planned.
    names
        Perturbations that the user named, as the run has them.
    what
        What they would have been.
    """
    roster = Roster(run.engine, names)
    numbers = [run.engine.combining.measured.number_of_context(context) for context in contexts]
    place = {name: roster.number_of(name) for name in names}
    there = [name for name, p in place.items() if p >= 0 and all(roster.measured(number, p) for number in numbers)]
    if there:
        logger.warning("No %s, since measured in %s already: %s.", what, ", ".join(contexts), listing(there))
