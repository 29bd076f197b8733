"""What is measured on a loaded model: margin, perplexity, activations, effects."""
