"""The language of training programs, and all that an interpreter may know of them. Imports NumPy only.

Read effects.py first (what a program can ask for), then lockstep.py (the reference interpreter: what each answer
means). checks.py, loans.py and texts.py find misuse and name it, in the same way for every interpreter. fold.py,
wire.py and traffic.py say how values are added up, rounded and sent.
"""
