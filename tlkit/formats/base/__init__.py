"""Shared by all formats: stored types, arrays, the protocol of readers, recognition by content."""
