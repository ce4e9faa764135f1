"""What `tlkit fleet` shows."""
