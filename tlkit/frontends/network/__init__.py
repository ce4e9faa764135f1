"""Neural networks of before mlprograms: layers of ``NeuralNetwork.proto`` to operations of MIL."""
