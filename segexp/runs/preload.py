"""Imports that every training needs; the fork server makes them once for all jobs."""

import pandas
import pytorch_lightning
import torch

import segexp.config.checks
import segexp.data.ukbiobank
import segexp.methods.segmentation
import segexp.reports.overlay
import segexp.reports.page
import segexp.runs.callbacks
import segexp.runs.checkpoints
import segexp.runs.loggers
import segexp.runs.training

__all__ = ["pandas", "pytorch_lightning", "segexp", "torch"]
