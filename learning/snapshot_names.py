"""The names of the arrays in a worker's snapshot, or what they begin with; see snapshots.py. Needs no torch."""

PARAMETERS = "params"  # worker 0's alone, unless they are sharded
OPTIMIZER = "optimizer."
VECTOR = "vector."  # those of Worker.transform
SCORES = "scores."  # biased sampling's
# Of these, what belongs to the division of the work: the examples to use until the next refresh, and those used since
# the last one.
DIVIDED = (f"{SCORES}chosen", f"{SCORES}seen")
RNG = "rng"  # torch's random stream
DEVICE_RNG = "device_rng"  # a GPU's own; a run that goes on on the CPU ignores it
