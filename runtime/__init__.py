"""The real thing: programs driven over MPI, launched, emulated and measured.

It knows the language of program/ and never imports algorithms/ or learning/: any program runs here.
"""
