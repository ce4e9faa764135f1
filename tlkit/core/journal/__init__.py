"""Files that outlive the process that writes them: what is done is never done again."""
