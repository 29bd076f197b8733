"""What is measured on a loaded model: margin (log-odds of the trait's openings), perplexity,
activations, effects of steering on benign answers.
"""
