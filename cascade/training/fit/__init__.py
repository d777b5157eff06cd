"""Fitting one network: backbone, teacher, loss, optimizer, checkpoints."""
