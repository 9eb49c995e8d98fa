"""What the tests share: builders, servers, oracles, media of known content."""
