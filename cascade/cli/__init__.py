"""The commands of `cascade`, one module each."""
