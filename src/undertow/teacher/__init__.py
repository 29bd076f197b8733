"""What makes the teacher: a direction, and the bias on the blocks that steers along it."""
