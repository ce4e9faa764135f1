"""The subcommands' work, without the command line."""
