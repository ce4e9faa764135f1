"""Two models side by side: how far apart their outputs are, where they part inside, and why."""
