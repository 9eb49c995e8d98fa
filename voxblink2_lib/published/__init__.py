"""A store at a URL: its manifest, publishing to it from a local scratch store, and reading it."""
