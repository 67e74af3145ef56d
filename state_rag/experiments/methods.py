"""Which column of a table a job belongs to."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from state_rag.errors import StateRagError
from state_rag.experiments.fingerprint import NO_EFFECT, UNUSED
from state_rag.experiments.jobs import Job
from state_rag.retrieval.modes import MODES
from state_rag.settings import Mode

TITLES: dict[Mode, str] = {
    "none": "STATE",
    "genept": "STATE+GenePT",
    **{name: mode.title for name, mode in MODES.items()},
}
"""Names of the methods, in the order of the paper's tables."""

_USUAL_PRESETS = {"none", "genept", "vanilla", "hidden", "ptrag"}
_NAMED_APART = ("held_out", "seed", "training.topk_rag", "training.train_seed", "sweep_name", "sweep_dir")
"""Keys that name a job's line, seed or K."""

_EMBEDDINGS = "training.genept_path"


@dataclass(frozen=True)
class Method:
    """A method with its settings, at one K.

    Attributes
    ----------
    name
        The method's title, and in brackets what tells it from others of the same title in the sweep.
    mode
        As in `Job.method`.
    topk
        K; None where nothing is retrieved.
    preset
        As in `Job.preset`.
    """

    name: str
    mode: Mode
    topk: int | None
    preset: str = field(default="", compare=False)

    @property
    def retrieves(self) -> bool:
        """Whether K means anything for it."""
        return self.mode not in ("none", "genept")

    def at(self, topk: int | None) -> "Method":
        """Return the same method at another K."""
        return replace(self, topk=topk) if self.retrieves else self


def methods_of(jobs: Iterable[Job]) -> dict[str, Method]:
    """Return the method of each job, by the job's name.

    Jobs that differ in held-out line and seed alone are of one method. Where jobs of one preset also differ in another
    setting, that setting is named in brackets.
    """
    jobs = list(jobs)
    values = {job.name: _settings(job) for job in jobs}
    presets: dict[str, set[str]] = defaultdict(set)
    seen: dict[str, dict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for job in jobs:
        presets[job.method].add(job.preset)
    every_key = {key for settings in values.values() for key in settings}
    for job in jobs:
        for key in every_key:
            seen[job.preset][key].add(values[job.name].get(key))
    found = {}
    for job in jobs:
        told = [job.preset] if len(presets[job.method]) > 1 and job.preset not in _USUAL_PRESETS else []
        told += [
            f"{key.rpartition('.')[2]}={value}"
            for key, value in values[job.name].items()
            if len(seen[job.preset].get(key, ())) > 1
        ]
        name = TITLES[job.method] + (f" ({', '.join(told)})" if told else "")
        found[job.name] = Method(name, job.method, job.topk, job.preset)
    return found


def in_order(methods: Iterable[Method]) -> list[Method]:
    """Return methods in the order of the paper's tables, then by name and K."""
    places = list(TITLES)
    return sorted(set(methods), key=lambda method: (places.index(method.mode), method.name, method.topk or 0))


def find_methods(word: str, methods: Iterable[Method], flag: str) -> list[str]:
    """Return the names of the methods that a word means: as a name, else a title, else a mode, else a preset.

    Raises
    ------
    StateRagError
        If it means none of them; the message lists them.
    """
    methods = list(methods)
    names = list(dict.fromkeys(method.name for method in methods))
    meanings = (
        lambda method: method.name,
        lambda method: TITLES[method.mode],
        lambda method: method.mode,
        lambda method: method.preset,
    )
    for meaning in meanings:
        found = [method.name for method in methods if meaning(method).lower() == word.lower()]
        if found:
            return list(dict.fromkeys(found))
    raise StateRagError(f"{flag} {word!r} is none of the sweep's methods. Choose from: {', '.join(names)}.")


def _settings(job: Job) -> dict[str, str]:
    """Return the overrides that say what a job learns, by key without Hydra's leading signs."""
    left_out = (*_NAMED_APART, *NO_EFFECT, *(f"training.{flag}" for flag in UNUSED[job.method]))
    pairs = (override.partition("=") for override in job.overrides)
    settings = {key.lstrip("+~").partition("@")[0]: value for key, _, value in pairs}
    told = {
        key: value
        for key, value in settings.items()
        if not any(key == other or key.startswith(f"{other}.") for other in left_out)
    }
    if job.method != "none" and _EMBEDDINGS in settings:
        told[_EMBEDDINGS] = PurePath(settings[_EMBEDDINGS]).name
    return told
