"""Whether W&B knows who is asking, without asking back."""

import os


def is_logged_in() -> bool:
    """Return whether there are credentials for W&B's server; never prompts."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # noqa: BLE001  unusable credentials, or a W&B that cannot be told not to prompt
        return False
