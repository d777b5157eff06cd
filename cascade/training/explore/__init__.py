"""Tools that compare ways to train and make no bundle."""
