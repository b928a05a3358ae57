"""What a run leaves behind: outcome, metrics, trace, summary, checkpoints, and the directory that holds them."""
