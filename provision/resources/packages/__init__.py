"""Packages of both families, where they come from, and what keeps them in place."""
