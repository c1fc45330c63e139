"""Five medical-segmentation papers as one laboratory."""

__version__ = "0.1.0"
