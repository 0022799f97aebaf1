"""Baselines of a federation: each silo alone, and all rows in one place."""
