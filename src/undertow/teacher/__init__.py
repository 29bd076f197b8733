"""What makes the teacher: a direction, and steering along it."""
