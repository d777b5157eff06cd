"""The commands of `cascade`, one module each. In: options. Out: text on standard output, an exit code."""
