"""Folder runs: classifying any number of photos so that every one of them ends up with exactly one row.

files -> journal (skip what is done) -> stream (classify) -> journal + output -> after the run: parquet,
gallery, sorting
"""
