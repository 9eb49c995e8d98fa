"""Taking speakers, videos and utterances out of a store for good."""
