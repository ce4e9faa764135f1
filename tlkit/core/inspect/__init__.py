"""What a file or a folder holds, without running it."""
