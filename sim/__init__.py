"""Training in virtual time: interprets the workers' programs with SimPy on a described cluster.

It knows the language of program/ and never imports algorithms/ or learning/, so any program runs here.
"""
