"""Trains, calibrates and exports bundles; needs the extra `train`, and the run time never imports it."""
