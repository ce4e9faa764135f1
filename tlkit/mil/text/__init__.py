"""MIL as text, read and printed."""
