"""Untrusted files: mapped, unzipped and parsed within bounds."""
