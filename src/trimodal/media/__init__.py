"""Encoded media to plain arrays, without torch: what a process that only opens files imports."""
