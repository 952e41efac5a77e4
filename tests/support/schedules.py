"""The number of schedules in the slow simulations: 2,000, or `WSACTION_SCHEDULES`; the whole set has 10,000."""

import os

__all__ = ("SCHEDULES",)

SCHEDULES = int(os.environ.get("WSACTION_SCHEDULES", "2000"))
