"""`paceline plan`: which workers, method, batches and placement to train with, found by simulating the ways to train.

Where each question is answered:

- which ways there are: request (without a file), lab (the machines), methods, space;
- how long each takes: values (simulated), bounds (at the least), measures (and why);
- which one to take: plan, with judge and reasons; for a target contest, runs and learned;
- how it is told: answer, printing, figure, command.
"""
