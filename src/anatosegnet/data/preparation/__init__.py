"""Data looked at and put in order before anything is trained."""
