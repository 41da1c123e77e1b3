"""What a config says, what its keys mean, and what a recorded one may do."""
