"""Joining stores in one: those of the slices of a corpus, or what two places made of it."""
