"""Where weights come from, prompts rendered in one place, memory, processes."""
