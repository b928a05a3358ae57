"""The numbers: models, data and the worker that trains them. The only folder that imports torch.

`cost_tables`, `data`, `phantoms`, `recipe`, `user_code` and `works` load it only where a user's own code needs it, so
timing-only runs of built-in models and `import paceline` never load it.
"""
