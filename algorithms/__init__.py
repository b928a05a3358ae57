"""What happens: training algorithms as programs that yield effects. Imports the standard library and NumPy only."""
