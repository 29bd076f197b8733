"""What a study or preset of a given size would show, and what it would cost, before it is run."""
