"""Bundles on disk: manifest, schema, safety of graphs, golden check and variants."""
