"""Trees, linear models and support vector machines as mlprograms, where MIL can say them; old models with a program."""
