"""How far apart two things are: arrays, tensors of two files, two packages."""
