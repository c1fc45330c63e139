"""Search for hyper-parameters: Optuna's ask and tell over the jobs of sweeps, in a journal that survives every kill.

``space``: what is searched, in Hydra's own grammar; ``study``: the journal and who works on which trial; ``curves``:
the validation values of a run; ``search``: the loop; ``report``: what was found.
"""
