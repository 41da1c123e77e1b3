"""What tune does: the space, the study, its trials, and what is shown of them."""
