"""Helpers that are not attribution."""
