"""One module a file format: recognise, read, describe."""
