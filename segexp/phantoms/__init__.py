"""Synthetic data in the data sets' real layouts: numpy and scipy only, usable on their own."""
