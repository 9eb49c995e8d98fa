"""What the dataset builder is told: its configuration."""
