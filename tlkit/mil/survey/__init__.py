"""What is told about a program without changing or running it: what names mean in it, and what its values need."""
