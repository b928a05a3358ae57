"""What is lost when processes of a training are killed, stopped, or fail, and when their checkpoints are damaged.

    python -m benchmarks.kills [PART...] [--count N] [--seed N] [--out FILE]

Each part is a module with a docstring, a COUNT, and `measure(trial) -> Found`. Its runs are real: `paceline train` with
four ranks on the digits, killed from outside or by the scenario's `faults`. What a part claims is told with whether it
held; docs/kills.md is made of these claims. Times are of a wall clock, so a busy machine makes them longer.
"""
