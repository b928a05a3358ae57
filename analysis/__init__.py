"""Reads what runs left: comparisons, figures. Never runs anything itself."""
