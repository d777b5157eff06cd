"""Learns from corrections: new heads, labels and experts for a bundle, without its training photos."""
