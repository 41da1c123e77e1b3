"""Files of anybody, opened with care; own files, written whole or not at all."""
