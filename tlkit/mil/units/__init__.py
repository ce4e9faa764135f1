"""What Apple's units compute, as far as measurements of them were published: profiles to run a program by, off a Mac.

``profiles`` names them and has their rules as data; ``emulation`` chooses a function for each operation of a program;
the other modules are the arithmetic.
"""
