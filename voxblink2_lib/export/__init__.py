"""A store's clips in the formats of other tools."""
