"""What `tlkit bench` shows of a measurement."""
