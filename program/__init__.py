"""The language of training programs, and all that an interpreter may know of them. Imports NumPy alone.

effects: what a program can ask of the world. lockstep: the reference interpreter, which says what every answer means.
"""
