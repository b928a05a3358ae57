"""Training in virtual time: interprets the workers' programs with SimPy on a described cluster.

Imports algorithms' effects, errors, fold, streams and traffic, never a method: any program runs here.
"""
