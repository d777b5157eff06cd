"""How good a bundle is on labelled photos: metrics with intervals, guarantees checked, the report."""
