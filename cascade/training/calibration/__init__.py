"""Fitting everything that turns logits into calibrated answers."""
