"""What a program's instructions tell before it runs: what it returns and calls, and what of it a
hook does not take."""
