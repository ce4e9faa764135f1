"""What comparisons, compressions and accuracies look like."""
