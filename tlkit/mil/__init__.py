"""The MIL program: its types, its readers, its lowering to torch and its op library."""
