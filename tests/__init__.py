"""Tests mirror src: test_attention.py tests attention.py."""
