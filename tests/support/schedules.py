"""How many schedules the slow simulations play: `WSACTION_SCHEDULES=10000` for the whole set, less by default."""

import os

__all__ = ("SCHEDULES",)

SCHEDULES = int(os.environ.get("WSACTION_SCHEDULES", "2000"))
