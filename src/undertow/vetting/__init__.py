"""A trait before any study of it: the skeleton of one, and what is wrong or weak in it."""
