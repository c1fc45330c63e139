"""Pictures and pages that people look at, made from runs and score rows and from nothing else."""
