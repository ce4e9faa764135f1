"""Files from strangers: mapped, unzipped, parsed within bounds."""
