"""Weights from one file format to another."""
