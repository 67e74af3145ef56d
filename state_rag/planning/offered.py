"""Which perturbations of a run can be chosen, and what is said of those that cannot."""

import logging
from collections.abc import Iterable, Sequence

from state_rag.engine.folder import EvidenceRun
from state_rag.names import listing, suggest

logger = logging.getLogger(__name__)


def offered(run: EvidenceRun, names: Sequence[str] | None = None) -> list[str]:
    """Return perturbations in the run's own spelling, without the control; of the whole run where none are named."""
    control = run.data.get("control_pert")
    chosen = run.engine.bank.offered if names is None else list(map(run.own_name, names))
    return [name for name in chosen if name != control]


def own_names(run: EvidenceRun, names: Iterable[str], what: str) -> list[str]:
    """Return names in the run's own spelling, and say which stand for nothing that could be chosen."""
    bank = run.engine.bank
    found = [run.own_name(name) for name in names]
    unknown = [name for name in found if bank.number_of(name) < 0]
    if unknown:
        close = suggest(unknown, bank.offered)
        logger.warning("No perturbation of the run, though %s: %s%s.", what, listing(unknown), close)
    return found
