"""What a run leaves behind: metrics, trace, summary, checkpoints, and the directory that holds them."""
