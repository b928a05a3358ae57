"""The real thing: programs driven over MPI, launched, emulated and measured."""
