"""What training sees: augmented views, sampling and batches."""
