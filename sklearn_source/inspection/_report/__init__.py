"""One page about a network's errors: what they rest on, what to do, how sure that is."""

from __future__ import annotations
