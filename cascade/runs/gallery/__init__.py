"""Pages of HTML that show the photos of a run, sorted by label."""
