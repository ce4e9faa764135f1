"""Engines that execute models: Apple's Core ML on a Mac, torch anywhere."""
