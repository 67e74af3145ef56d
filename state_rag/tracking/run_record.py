"""What a run folder remembers of its W&B run, so that an evaluation can go there later: `wandb_run.json`.

STATE itself writes `wandb_path.txt` (entity, project and id). That is enough where W&B's server knows the rest. An
offline run is resumed by a second offline folder with the same id. When both are synchronised, W&B appends the second
one's history and lets its configuration, tags and summary replace the first one's, so that it must carry those as well.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from state_rag.files import atomic_path

FILE = "wandb_run.json"
PATH_FILE = "wandb_path.txt"


@dataclass(frozen=True)
class RunRecord:
    """A W&B run.

    Attributes
    ----------
    entity, project, run_id
        Where it lies; an offline run may not know its entity.
    offline
        Whether it was recorded offline.
    step
        W&B's own step count after what was logged last; None where training did not end.
    folder
        W&B's local folder.
    name, group, job_type, tags, config, summary
        As the run has them.
    evaluation
        Digest of the evaluation that was logged last; None before the first.
    """

    entity: str | None
    project: str | None
    run_id: str
    offline: bool = False
    step: int | None = None
    folder: str | None = None
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    evaluation: str | None = None

    @classmethod
    def of(cls, run: Any) -> "RunRecord":
        """Describe a W&B run in progress."""
        return cls(
            entity=run.entity or None,
            project=run.project or None,
            run_id=run.id,
            offline=bool(run.offline),
            folder=str(Path(run.settings.wandb_dir).resolve().parent),
            name=run.name,
            group=run.group or None,
            job_type=run.job_type or None,
            tags=list(run.tags or ()),
            config=_plain(run.config),
        )

    def with_progress(self, run: Any) -> "RunRecord":
        """Return the record after something was logged."""
        summary = {key: value for key, value in _plain(run.summary).items() if not key.startswith("_")}
        return replace(self, step=int(run.step), config=_plain(run.config), summary=summary)

    def save(self, folder: Path) -> None:
        """Write the record into a run folder."""
        with atomic_path(folder / FILE) as path:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "RunRecord | None":
        """Return the record of a run folder, made of `wandb_path.txt` where there is no more; None without either.

        Raises
        ------
        ValueError
            If a file is damaged.
        """
        if (folder / FILE).is_file():
            try:
                return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{folder / FILE} is damaged ({error})") from error
        if not (folder / PATH_FILE).is_file():
            return None
        parts = (folder / PATH_FILE).read_text(encoding="utf-8").strip().split("/")
        if not parts[-1]:
            raise ValueError(f"{folder / PATH_FILE} names no run")
        entity, project = ([None, None, *parts[:-1]])[-2:]
        return cls(entity=entity or None, project=project or None, run_id=parts[-1])


def _plain(values: Any) -> dict[str, Any]:
    """Return a W&B configuration or summary as plain types."""
    return json.loads(json.dumps(dict(values), default=lambda one: dict(one) if hasattr(one, "keys") else str(one)))
