"""The numbers: models, data and the worker that trains them. The only folder that imports torch.

`architectures`, `arrays`, `cost_tables`, `data`, `dataset`, `model_arguments`, `npz`, `phantoms`, `recipe`, `user_code`
and `works` load it only where a user's own code needs it, or to count what a published architecture costs. So
timing-only runs of models with a table and `import paceline` never load it.
"""
