"""What can execute a model: Apple's Core ML on a Mac, torch anywhere."""
