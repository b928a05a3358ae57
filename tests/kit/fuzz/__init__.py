"""The command line under random input: `inputs` draws cases, `runner` runs and judges them, in children of `server`."""
