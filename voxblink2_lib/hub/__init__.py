"""What is published on the Hugging Face Hub for others: data sets of clips, and metrics."""
