"""What this machine can do: facts gathered from it, probes that really try, and what follows for training.

Functions that judge take facts as arguments; only ``facts`` and ``probes`` look at the machine.
"""
