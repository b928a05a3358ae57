"""The numbers: models, data and the worker that trains them. The only place that imports torch, and not from here:
`tables`, `data`, `imports` and `phantoms` never load it, so timing-only runs and `import paceline` do not either.
"""
