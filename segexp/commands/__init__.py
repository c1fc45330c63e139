"""One short file per verb.

Each declares ``SUMMARY`` (one line), ``HELP`` (the text of ``segexp <verb> --help``) and
``run(arguments) -> int | None``, and imports nothing heavy before ``run`` is called.
"""
