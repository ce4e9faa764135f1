"""One module per subcommand: parse, call core, hand the result to the sink."""
