"""The HTTP service of `cascade serve`; needs the extra `serve`."""
