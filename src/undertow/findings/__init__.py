"""What the intervals allow to be said, in words."""
