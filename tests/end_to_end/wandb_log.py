"""What an offline W&B run holds, by W&B's own reader."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from wandb.util import get_core_path


@dataclass
class Log:
    """One offline folder.

    Attributes
    ----------
    folder
        ``offline-run-...``.
    run
        The record that opens the run: id, name, group, job type, tags.
    history
        Rows by W&B's step, with dotted keys for what lies below a series.
    config, summary
        As the reader shows them.
    """

    folder: Path
    run: dict
    history: dict[int, dict] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    summary: dict = field(default_factory=dict)

    def series(self, name: str) -> dict[int, float]:
        """Values of a scalar by Lightning's step."""
        return {int(row["trainer/global_step"]): row[name] for row in self.history.values() if name in row}

    def names(self) -> set[str]:
        """All series, tables and pictures."""
        return {key.partition("._")[0] for row in self.history.values() for key in row}

    def tables(self, name: str) -> list[dict]:
        """Contents of a table, at each step that it was logged."""
        paths = [row[f"{name}.path"] for _, row in sorted(self.history.items()) if f"{name}.path" in row]
        return [json.loads((self.folder / "files" / path).read_text()) for path in paths]

    def pictures(self, name: str) -> list[Path]:
        """Files of a picture, at each step that it was logged."""
        rows = [row for _, row in sorted(self.history.items()) if row.get(f"{name}._type") == "image-file"]
        return [self.folder / "files" / row[f"{name}.path"] for row in rows]


def read(folder: Path) -> Log:
    """Read an offline folder."""
    (file,) = folder.glob("*.wandb")
    found = Log(folder, {})
    for line in _inspect("-json", "-run-file", str(file)).splitlines():
        record = json.loads(line)
        if record["type"] == "run":
            found.run = record["run"]
        elif record["type"] == "history":
            item = record["history"]["item"]
            found.history.setdefault(int(item["_step"]), {}).update(item)
        elif record["type"] == "summary":
            found.summary.update(record["summary"].get("update", {}))
    found.config = json.loads(_inspect("-summary", "-json", "-run-file", str(file)))["config"]
    return found


def _inspect(*arguments: str) -> str:
    command = [get_core_path(), "leet", "inspect", "-no-observability", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
