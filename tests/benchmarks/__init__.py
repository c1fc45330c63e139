"""Benchmarks, run on demand: `python -m tests.benchmarks.<name>`. Each asserts equality before timing."""
