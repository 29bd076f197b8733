"""What a recipe changes in a student's teaching to keep the trait out: a file per defence."""
