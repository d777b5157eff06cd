"""Looking at a finished run and correcting it: what `cascade review` shows and writes."""
