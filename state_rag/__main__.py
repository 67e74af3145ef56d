"""`python -m state_rag tx train ...`: STATE's own commands with the plugin attached by hand.

For installations whose `.pth` files Python does not read, such as `pip install --target`.
"""

import sys

from state_rag.startup import arm


def main() -> None:
    """Attach the plugin, then run STATE's command line with the arguments as given."""
    arm()
    from state.__main__ import main as state

    sys.argv[0] = "state"
    state()


if __name__ == "__main__":
    main()
