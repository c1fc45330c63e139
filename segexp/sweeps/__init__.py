"""Many runs: composed once, recorded on disk, each trained in a process of its own by submitit's executors.

``job``: one training and its resolved configuration; ``manifest``: what a sweep consists of, on disk; ``work``: what a
job's process does; ``local`` and ``slurm``: where the processes run; ``controller``: which job starts when, and what
became of it.
"""
