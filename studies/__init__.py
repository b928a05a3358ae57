"""Asks many runs a question, like a sweep's table of simulations. Runs them by functions that it is given."""
