"""What makes the student: carrier rows to a LoRA adapter."""
