"""Results formatted for people, HTML pages and other programs."""
