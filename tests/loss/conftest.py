from __future__ import annotations

from tests._small_nets import make_net, rng  # noqa: F401  (fixtures)
