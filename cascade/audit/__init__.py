"""Finds what is wrong with labelled photos before anybody trains on them. Needs the extra `audit`."""
