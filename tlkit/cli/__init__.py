"""One module a subcommand: parse, call core, hand the result to the sink."""
